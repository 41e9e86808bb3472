"""Another process with the same cache, driven over pipes; `python -m tests.store.peer PATH` is its other end.

It can be told to kill itself at a step inside the store: the step's function is wrapped in that process only.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from aiscache.settings import CacheSettings
from aiscache.store import Record, Store, index, reclaim, registry, segment, space, tiers, writer
from aiscache.store import store as store_module
from tests.store.objects import Blob

ROOT = Path(__file__).parents[2]


class PeerDiedError(Exception):
    pass


class Peer:
    """The near end. `ask` waits for the answer; `tell` and `answer` are its halves."""

    alive: ClassVar[set[Peer]] = set()

    def __init__(self, path: Path | None, capacity: int | str | None = None, *, memory: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        self.pid = self._process.pid
        self.alive.add(self)
        self.tell("start", str(tiers.SHARED_MEMORY), path, capacity, memory)
        self.answer()

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.tell(verb, *arguments)
        return self.answer()

    def tell(self, verb: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump((verb, arguments), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerDiedError from None

    def answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            error, value = pickle.load(self._process.stdout)
        except EOFError:
            raise PeerDiedError from None
        if error is not None:
            raise AssertionError(f"in the other process:\n{error}")
        return value

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        self.alive.discard(self)
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except BrokenPipeError:
                continue
        return self._process.wait(timeout=60)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


class _FarEnd:
    def __init__(self, shared_memory: str, path: Path | None, capacity: int | str | None, memory: str | None) -> None:
        tiers.SHARED_MEMORY = Path(shared_memory)
        self.settings = CacheSettings.resolve(path, capacity=capacity, memory=memory)
        self.used: set[str] = set()
        self.held: dict[str, Any] = {}
        self.store = self._open()

    def _open(self) -> Store:
        return registry.acquire(self.settings, in_use=self._in_use)

    def _in_use(self, records: Sequence[Record]) -> Sequence[bool]:
        return [record.ref.name in self.used for record in records]

    def put(self, blobs: list[Blob]) -> list[bool]:
        return [blob.offer(self.store) for blob in blobs]

    def get(self, blobs: list[Blob]) -> list[bool]:
        return [blob.is_right(self.store) for blob in blobs]

    def hold(self, blob: Blob) -> bool:
        self.held[blob.ref.name] = blob.get(self.store)
        return self.held[blob.ref.name] is not None

    def held_is_right(self, blob: Blob) -> bool:
        return bytes(self.held[blob.ref.name]) == blob.data

    def let_go(self) -> None:
        self.held.clear()
        self.store.trim()
        self.store.trim()

    def reserve(self, blob: Blob) -> bool:
        self.held[blob.ref.name] = blob.reserve(self.store)
        return self.held[blob.ref.name] is not None

    def publish(self, blob: Blob) -> None:
        reservation = self.held.pop(blob.ref.name)
        reservation.buffer[:] = blob.data
        self.store.publish([reservation])

    def sweep(self, names: set[str], force: bool) -> Any:
        return self.store.sweep(lambda records: [record.ref.name in names for record in records], force=force)

    def use(self, names: set[str]) -> None:
        self.used = names

    def clear(self) -> None:
        self.store.clear()

    def repair(self) -> int:
        return self.store.repair()

    def usage(self) -> Any:
        return self.store.usage()

    def reopen(self) -> None:
        registry.release(self.store)
        self.store = self._open()

    def close(self) -> None:
        registry.release(self.store)

    def stats(self) -> tuple[Any, Any]:
        return self.store.counters.process(), self.store.counters.machine()

    def count(self, amount: int) -> None:
        self.store.counters.add("misses", amount)

    def die_at(self, step: str, after: int) -> None:
        _arm(step, after)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, count: int) -> None:
    _wrap(owner, name, count, die_first=True)


def _after(owner: Any, name: str, count: int) -> None:
    _wrap(owner, name, count, die_first=False)


def _wrap(owner: Any, name: str, count: int, *, die_first: bool) -> None:
    inner: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if die_first and calls > count:
            _die()
        result = inner(*args, **kwargs)
        if calls > count:
            _die()
        return result

    setattr(owner, name, wrapper)


STEPS: dict[str, tuple[Callable[[Any, str, int], None], Any, str]] = {
    "space granted": (_after, space.Space, "_grant"),
    "file created": (_after, space, "SegmentWriter"),
    "file allocated": (_after, writer.os, "posix_fallocate"),
    "file extended": (_after, writer.SegmentWriter, "extend"),
    "header pending": (_after, writer.SegmentWriter, "take"),
    "bytes written": (_before, writer.Reservation, "commit"),
    "header committed": (_after, writer.Reservation, "commit"),
    "entry written, not committed": (_after, index.Index, "put_entry"),
    "entry published": (_after, store_module.Store, "_put_entries"),
    "mapped": (_after, segment.MappedSegments, "view"),
    "file mapped": (_after, segment, "Mapping"),
    "tail cut off": (_after, writer.SegmentWriter, "finish"),
    "sealed": (_after, space.Space, "_seal"),
    "entries forgotten": (_before, reclaim.Reclaimer, "_set_reserved"),
    "filler written": (_before, reclaim, "_FALLOCATE"),
    "hole punched": (_after, reclaim, "_FALLOCATE"),
    "unlinked": (_after, reclaim.Path, "unlink"),
    "swept": (_after, reclaim.Reclaimer, "_set_reserved"),
}


def _arm(step: str, after: int) -> None:
    wrap, owner, name = STEPS[step]
    wrap(owner, name, after)


def main() -> None:
    pipe_in, pipe_out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    far: Any = None
    while True:
        try:
            verb, arguments = pickle.load(pipe_in)
        except EOFError:
            return
        error = value = None
        try:
            if verb == "start":
                far = _FarEnd(*arguments)
            else:
                value = getattr(far, verb)(*arguments)
        except BaseException:
            error = traceback.format_exc()
        pickle.dump((error, value), pipe_out)
        pipe_out.flush()


if __name__ == "__main__":
    main()
