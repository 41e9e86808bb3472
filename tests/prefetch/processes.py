"""What the tests of the pool see of processes, from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from aiscache import Cache
from tests.store.objects import disk_usage

DEADLINE_S = 30.0
# What LMDB's file grew by for objects that were staged, or while somebody read, stays. On a busy machine a reader may
# lose the processor in the middle of a transaction for a tenth of a second, and meanwhile no page is used again.
INDEX_GROWTH = 2 << 20


def wait_until(happened: Callable[[], object], *, timeout_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    except OSError:
        return []


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return children + [below for child in children for below in descendants_of(child)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pool_processes(pid: int) -> list[int]:
    """Return the pool and the workers below a trainer, the pool first."""
    return [found for found in descendants_of(pid) if "aiscache.prefetch" in command_of(found)]


def pss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def held_locks(path: Path) -> list[str]:
    """Return the kernel's lines on locks in the files of a cache directory."""
    inodes = {str(file.stat().st_ino) for file in (path / "flights", path / "leases") if file.exists()}
    return [line for line in Path("/proc/locks").read_text().splitlines() if line.split()[-3].split(":")[-1] in inodes]


def nothing_is_left(path: Path, *, capacity: int) -> None:
    """Open the cache as the next user would: what a crash left over is removed, and the capacity holds."""
    with Cache(path):
        assert not list((path / "staging").glob("*.seg"))
        assert disk_usage(path) - disk_usage(path / "index") <= capacity
        assert disk_usage(path) <= capacity + INDEX_GROWTH
    assert os.path.isdir(path)
    assert held_locks(path) == []
