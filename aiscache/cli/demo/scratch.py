"""A cache directory for one run: in shared memory if there is room, else on disk; removed at the end.

A killed run cannot remove its own. The kernel then frees its lock, and the next run removes what nobody has locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aiscache.errors import CacheDirectoryError
from aiscache.settings import format_size

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  (mkdtemp makes a 0700 directory with a fresh name in it)
_PREFIX = "aiscache-demo-"


@contextlib.contextmanager
def scratch_directory(needed_bytes: int) -> Iterator[Path]:
    """Give a new directory on a file system with that much room; CacheDirectoryError if there is none."""
    parents = (_SHARED_MEMORY, tempfile.gettempdir())
    for parent in parents:
        _remove_abandoned(parent)
    roomy = [parent for parent in parents if _free_bytes(parent) > needed_bytes]
    if not roomy:
        raise CacheDirectoryError(
            f"the demo's cache needs {format_size(needed_bytes)}, and neither {' nor '.join(parents)} has that much "
            f"free; ask for less with --objects or --size"
        )
    path, lock = _make_locked(roomy[0])
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _make_locked(parent: str) -> tuple[str, int]:
    """Return a new directory and the descriptor that holds its lock.

    1. We make it. 2. Another run finds it without a lock and removes it. 3. We lock what has no name any more. So look
    again after locking whether it is there.
    """
    while True:
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.isdir(path):
                return path, lock
            os.close(lock)


def _free_bytes(path: str) -> int:
    try:
        info = os.statvfs(path)
    except OSError:
        return 0
    return info.f_bavail * info.f_frsize


def _remove_abandoned(parent: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            if name.startswith(_PREFIX) and os.lstat(path).st_uid == os.geteuid():
                _remove_unlocked(path)


def _remove_unlocked(path: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)
