"""Tiers: where segments lie, and how many bytes each place may hold."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import xxhash

from aiscache.errors import CacheDirectoryError
from aiscache.store.directory import Directory
from aiscache.store.index import DISK, MEMORY, STAGING, Index
from aiscache.store.names import segment_name

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (a per-user, 0700 directory in it is made and checked)

_MOST_SEGMENTS = 8192


@dataclass(frozen=True, slots=True)
class Tier:
    """One place for segments. `capacity_bytes` is None where nothing new is put (but what is there is read).

    Reads count as those of the tier `counted_as`, its own number if that is None.
    """

    number: int
    path: Path
    capacity_bytes: int | None
    counted_as: int | None = None

    def segment_path(self, segment_id: int) -> Path:
        """Return the path of a segment's file."""
        return self.path / segment_name(segment_id)

    def used_at(self, segment_id: int) -> float:
        """Return when a segment was last read or written, in seconds of the Unix epoch; 0 if it is gone."""
        try:
            return self.segment_path(segment_id).stat().st_mtime
        except OSError:
            return 0.0

    @property
    def segment_bytes(self) -> int:
        """Return how long segments grow here: so short that removing one is a small step, and not too many of them.

        At most 256 MiB up to 2 TiB. Larger tiers have longer ones, about `_MOST_SEGMENTS`: opening a cache takes some
        microseconds for each, and a process may have 65,530 mappings.
        """
        capacity = self.capacity_bytes or 0
        return min(max(capacity // 64, 1 << 20), max(256 << 20, capacity // _MOST_SEGMENTS))


def user_memory_directory() -> Path:
    """Return this user's directory in shared memory."""
    return SHARED_MEMORY / f"aiscache-{os.geteuid()}"


def memory_tier(directory: Path) -> Path:
    """Return where the memory tier of a cache directory on disk lies, if it has one."""
    return user_memory_directory() / f"tier-{xxhash.xxh3_64_hexdigest(os.fsencode(directory.resolve()))}"


def make_tiers(
    directory: Directory, index: Index, *, capacity_bytes: int | None, memory_bytes: int | None
) -> dict[int, Tier]:
    """Return the tiers of a cache, the one to fill first first.

    A capacity that is given becomes the directory's; one that is not is what the directory has, at first half of the
    free space of its file system.
    """
    home = MEMORY if directory.in_memory else DISK
    tiers = {}
    if home == DISK:
        budget = _capacity(index, MEMORY, memory_bytes, default=0)
        path = memory_tier(directory.path)
        if budget:
            _make_memory_directory(path)
        tiers[MEMORY] = Tier(MEMORY, path, budget or None)
    elif memory_bytes is not None and capacity_bytes is None:
        capacity_bytes = memory_bytes
    free = os.statvfs(directory.path)
    capacity = _capacity(index, home, capacity_bytes, default=free.f_bavail * free.f_frsize // 2)
    tiers[home] = Tier(home, directory.segments, capacity)
    tiers[STAGING] = Tier(STAGING, directory.staging, None, counted_as=home)
    return tiers


def _capacity(index: Index, tier: int, given: int | None, *, default: int) -> int:
    name = b"capacity/%d" % tier
    with index.read() as transaction:
        stored = index.number(transaction, name)
    wanted = given if given is not None else stored or default
    if wanted != stored:
        index.set_number(name, wanted)
    return wanted


def _make_memory_directory(path: Path) -> None:
    while True:
        try:
            make_private(path.parent)
            make_private(path)
        except FileNotFoundError:  # the last user of an unnamed cache removes the parent, just now
            continue
        return


def make_private(path: Path) -> None:
    """Make a directory that only this user can write; CacheDirectoryError if what is there is something else."""
    with contextlib.suppress(FileExistsError):  # not exist_ok: it looks again, and raises if the directory went away
        path.mkdir(mode=0o700)
    info = path.lstat()
    if info.st_uid != os.geteuid() or info.st_mode & 0o022 or not stat.S_ISDIR(info.st_mode):
        raise CacheDirectoryError(
            f"{path} is not a directory that only this user can write; remove it, or use a cache with a path on disk "
            f"and without memory=..."
        )
