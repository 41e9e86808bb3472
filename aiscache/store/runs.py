"""What was noted of the last epochs of training and of warming: one file per cache, of bounded size.

A line of JSON for each. Lines are added under a lock; when the file is full, the older half goes. It is for people to
look at afterwards: what cannot be written is not, and a line that cannot be read is skipped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psutil

from aiscache.errors import CacheError
from aiscache.store.store import Store

MOST_BYTES = 512 << 10
_LONGEST_PROGRAM = 200
_ENCODER = msgspec.json.Encoder()


class EpochNote(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of one process, or one warming. `counters` and `latencies` are the machine's, while it lasted.

    `samples` is how many the loop had by the end of `seconds`; 0 if that is not known, as where an epoch is so short
    that the loader asks for all of it at once.
    """

    kind: str  # "epoch" or "warm"
    run: str  # the process
    program: str  # without its arguments, which may be nobody else's business
    rank: str  # "" if it has none
    number: int  # of the epoch, in its process, from 0 on
    began: float  # seconds of the Unix epoch
    seconds: float
    samples: int
    complete: bool
    counters: dict[str, float]
    latencies: list[int]


_DECODER = msgspec.json.Decoder(EpochNote)
_numbers: dict[str, int] = {}  # of the last epoch, by file


class Doing:
    """What whoever does something notable tells of it, while it goes on."""

    def __init__(self) -> None:
        self.samples = 0
        self.complete = False


@contextmanager
def noted(store: Store | None, *, kind: str) -> Iterator[Doing]:
    """Note what happens in the block, however it ends; two looks at the counters of all processes, and one write."""
    doing = Doing()
    begin = None if store is None else _Begin.of(store)
    try:
        yield doing
    finally:
        if begin is not None and not sys.is_finalizing():  # a loop that the interpreter's end broke off
            with contextlib.suppress(OSError, CacheError):
                begin.note(doing, kind=kind)


class _Begin:
    """How things stood when it began."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counters = store.counters.machine()
        self._latencies = store.counters.latencies()
        self._at, self._clock = time.time(), time.monotonic()

    @classmethod
    def of(cls, store: Store) -> _Begin | None:
        """Look; None if the counters cannot be read: there is nothing to note then."""
        try:
            return cls(store)
        except OSError:
            return None

    def note(self, doing: Doing, *, kind: str) -> None:
        """Write down what happened since."""
        counters, path = self._store.counters, self._store.directory.runs
        number = _numbers[path] = _numbers.get(path, -1) + 1
        note = EpochNote(
            kind=kind,
            run=f"{os.getpid()}-{psutil.Process().create_time():.0f}",
            program=sys.argv[0][-_LONGEST_PROGRAM:],
            rank=os.environ.get("RANK", os.environ.get("SLURM_PROCID", "")),
            number=number,
            began=self._at,
            seconds=time.monotonic() - self._clock,
            samples=doing.samples,
            complete=doing.complete,
            counters=(counters.machine() - self._counters).asdict(),
            latencies=[now - then for now, then in zip(counters.latencies(), self._latencies, strict=True)],
        )
        _append(path, _ENCODER.encode(note) + b"\n")


def notes_in(path: str) -> list[EpochNote]:
    """Return what was noted, oldest first; nothing if there is no such file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    notes = []
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            notes.append(_DECODER.decode(line))
    return notes


def _append(path: str, line: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(fd).st_size + len(line) > MOST_BYTES:
            file.seek(0)
            kept = file.read()[-MOST_BYTES // 2 :].partition(b"\n")[2]
            file.truncate(0)
            file.write(kept)
        file.write(line)
