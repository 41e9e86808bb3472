"""What a process holds, before and after a test: files, threads, children, mapped segments."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

_SETTLE_S = 2.0


@dataclass(frozen=True)
class Holdings:
    files: frozenset[str]  # what regular files are open; sockets and pipes belong to sessions that outlive a test
    threads: frozenset[int]
    children: frozenset[int]
    mapped_segments: frozenset[str]

    @classmethod
    def now(cls) -> Holdings:
        return cls(_files(), _threads(), _children(), _mapped_segments())

    def more_than(self, before: Holdings) -> dict[str, list[object]]:
        """Return by kind what is held now and was not before."""
        grown = {field.name: getattr(self, field.name) - getattr(before, field.name) for field in fields(self)}
        return {name: sorted(new) for name, new in grown.items() if new}


KINDS = tuple(field.name for field in fields(Holdings))


def leaked_since(before: Holdings, *, kinds: Sequence[str] = KINDS) -> dict[str, list[object]]:
    """Return what is left over, after waiting a moment for what is just ending."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        grown = Holdings.now().more_than(before)
        leaked = {kind: grown[kind] for kind in kinds if kind in grown}
        if not leaked or time.monotonic() > deadline:
            return leaked
        gc.collect()
        time.sleep(0.01)


def _files() -> frozenset[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith("/") and not target.startswith(("/dev/null", "/dev/tty", "/dev/pts", "/proc", "/usr")):
            found.add(f"{fd} -> {target}")
    return frozenset(found)


def _threads() -> frozenset[int]:
    return frozenset(thread.ident or 0 for thread in threading.enumerate())


def _children() -> frozenset[int]:
    pids = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids |= set(map(int, (task / "children").read_text().split()))
        except OSError:  # the thread ended
            continue
    return frozenset(pid for pid in pids if not _is_pythons_own(pid))


def _is_pythons_own(pid: int) -> bool:
    """Tell whether a child is one of the two helpers that `multiprocessing` keeps until the process ends."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # gone
    return b"multiprocessing.forkserver" in command or b"multiprocessing.resource_tracker" in command


def _mapped_segments() -> frozenset[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return frozenset(line.split(maxsplit=5)[5] for line in lines if ".seg" in line)
