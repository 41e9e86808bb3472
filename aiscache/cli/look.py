"""Looking at a cache without opening it: nothing is made, sealed, repaired or counted.

A program that opens a cache becomes one of its users: it takes a slot for its counters, seals what dead writers left,
and keeps the unnamed cache alive. Who only wants to tell what is there reads the files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import lmdb

from aiscache.cli.choice import Choice
from aiscache.cli.reading import TIER_NAMES, opened_index
from aiscache.errors import CacheDirectoryError
from aiscache.stats import CacheStats, Counters
from aiscache.store.directory import FORMAT, MEMORY_FILE_SYSTEMS, boot_id, file_system_of
from aiscache.store.index import DISK, MEMORY, ROWS
from aiscache.store.names import USERS_BYTE

SAMPLE = 2000  # entries of the index that are enough to tell which buckets fill a cache
_FLOCK = Struct("hhqqi4x")  # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid


class Tier(NamedTuple):
    """How full a tier is; bytes as the index has them reserved."""

    name: str
    used_bytes: int
    capacity_bytes: int
    segments: int


class Look(NamedTuple):
    """What is in a cache directory. `trusted` is False where the index is to be made anew by the next user."""

    file_system: str
    objects: int
    tiers: list[Tier]
    index_bytes: int
    counters: CacheStats
    trusted: bool


class _ReadOnlyCounters(Counters):
    """The counters of all processes, without a slot for this one."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)


def look_at(choice: Choice, *, most: int | None = SAMPLE) -> Look | None:
    """Return what is in a cache, None if it is the unnamed one and nobody uses it.

    An index that nobody has open is looked over before it is trusted: what a reader of its first `most` entries comes
    by (None: all of it, 0.1 s for a million objects).

    Raises CacheDirectoryError if a named directory is not there or is not a cache of this user.
    """
    if not choice.named and not unnamed_in_use(choice.path):
        return None
    try:
        check(choice.path)
        return _look(choice.path, most)
    except FileNotFoundError:
        if choice.named:
            raise
        return None  # its last user left meanwhile
    except CacheDirectoryError:
        if choice.named or choice.path.exists():
            raise
        return None


def check(path: Path) -> None:
    """Raise CacheDirectoryError if `path` is not a cache directory that this user may read."""
    try:
        if not path.is_dir():
            what = "is not a directory" if path.exists() else "does not exist"
            raise CacheDirectoryError(
                f"there is no cache in {path}: it {what}; name one with --cache DIR or AISCACHE_DIR (warm makes one)"
            )
        found = (path / "format").read_text()
    except FileNotFoundError:
        raise CacheDirectoryError(
            f"{path} is not a cache of aiscache: it has no file 'format'; name one with --cache DIR or AISCACHE_DIR"
        ) from None
    except OSError as error:
        raise CacheDirectoryError(f"the cache in {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        found = "?"
    if found != FORMAT:
        raise CacheDirectoryError(
            f"{path} is not a cache of this version: its format is {found.strip()[:40]!r}, not {FORMAT.strip()!r}; "
            f"a cache may be removed (rm -r {path}) and filled again"
        )
    if path.stat().st_uid != os.geteuid():
        raise CacheDirectoryError(
            f"the cache in {path} belongs to user id {path.stat().st_uid}, this is {os.geteuid()}; run it as that user"
        )


def unnamed_in_use(path: Path) -> bool:
    """Tell whether some process has a share in the unnamed cache: each holds byte 0 of the file `unnamed.lock`."""
    try:
        return _is_held(path.with_name("unnamed.lock"), 0)
    except OSError:
        return False


def _is_held(path: Path, byte: int) -> bool:
    """Tell whether some process holds a lock on a byte of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def bytes_under(path: Path) -> int:
    """Return the bytes that the files under a directory take, 0 if there is none."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                info = os.lstat(os.path.join(folder, name))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue
            total += info.st_blocks * 512 if stat.S_ISREG(info.st_mode) else 0
    return total


def _look(path: Path, most: int | None) -> Look:
    file_system = file_system_of(path)
    home = MEMORY if file_system in MEMORY_FILE_SYSTEMS else DISK
    trusted = _is_of_this_boot(path) and _is_whole(path, most)
    objects, tiers = _read_index(path) if trusted else (0, [])
    return Look(
        file_system=file_system,
        objects=objects,
        tiers=tiers or [Tier(TIER_NAMES[home], bytes_under(path / "segments"), 0, _count_files(path / "segments"))],
        index_bytes=bytes_under(path / "index") + bytes_under(path / "manifests"),
        counters=_read_counters(path / "stats"),
        trusted=trusted,
    )


def _is_of_this_boot(path: Path) -> bool:
    """Tell whether the index was written since the machine was started; else it may be damaged."""
    try:
        return (path / "boot").read_text() == boot_id()
    except OSError:
        return False


def _is_whole(path: Path, most: int | None) -> bool:
    """Tell whether the index can be read without harm; who has it open found it so."""
    try:
        if not _is_held(path / "leases", USERS_BYTE):
            from aiscache.store.pages import ALL, check_pages  # numpy, which a cache in use need not wait for

            check_pages(path / "index" / "data.mdb", rows=ROWS, most=ALL if most is None else {b"entries": most})
    except FileNotFoundError:  # it is being made
        return True
    except (OSError, lmdb.Error):
        return False
    return True


def _read_index(path: Path) -> tuple[int, list[Tier]]:
    """Return the number of objects, and the tiers that hold or may hold any; nothing if the index is being made."""
    try:
        with opened_index(path) as index, index.read() as transaction:
            rows = index.segments(transaction).values()
            tiers = [
                Tier(
                    name,
                    index.reserved(transaction, number),
                    index.number(transaction, b"capacity/%d" % number),
                    sum(row.tier == number for row in rows),
                )
                for number, name in TIER_NAMES.items()
            ]
            objects = index.count(transaction)
    except lmdb.Error:
        return 0, []
    return objects, [tier for tier in tiers if tier.capacity_bytes or tier.segments]


def _read_counters(path: Path) -> CacheStats:
    try:
        return _ReadOnlyCounters(path).machine()
    except FileNotFoundError:
        return CacheStats()


def _count_files(path: Path) -> int:
    try:
        return sum(name.endswith(".seg") for name in os.listdir(path))
    except FileNotFoundError:
        return 0
