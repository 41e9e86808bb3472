"""Processes from outside: what is below one, what locks it holds, and `Stops`, those that are stopped for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

from tests.prefetch.processes import command_of, descendants_of
from tools.soaking.figures import Figures

LONG_S = 10.0
_SPAWN_S = 60.0  # to import torch on a busy machine
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def below(pid: int) -> list[psutil.Process]:
    """Return the processes below one, without the helper that multiprocessing keeps."""
    found = []
    for process in descendants_of(pid):
        if not any(helper in command_of(process) for helper in _HELPERS):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(process))
    return found


def is_of_a_pool(process: psutil.Process) -> bool:
    """Tell whether a process is of a prefetching pool."""
    return "aiscache.prefetch" in command_of(process.pid)


def is_being_spawned(process: psutil.Process) -> bool:
    """Tell whether multiprocessing may still be writing to a process what it is to do.

    CPython (3.11, `popen_spawn_posix.py`) keeps the reading end of that pipe open itself: if the process is killed now,
    and there is more to write than fits into a pipe, its parent waits forever.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        return "multiprocessing.spawn" in command_of(process.pid) and time.time() - process.create_time() < _SPAWN_S
    return False


def holds_flights(pid: int, flights: Path) -> bool:
    """Tell whether a process has the lock of an object that it is fetching."""
    infos = [Path(f"/proc/{pid}/fdinfo/{fd}") for fd, file in _open_files(pid) if file == str(flights)]
    with contextlib.suppress(OSError):  # it ended, or closed the file
        return any("lock:" in info.read_text() for info in infos)
    return False


def _open_files(pid: int) -> list[tuple[str, str]]:
    """Return descriptors and what they lead to."""
    found = []
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            found.append((fd, os.readlink(f"/proc/{pid}/fd/{fd}")))
    return found


def locks_under(path: Path) -> list[str]:
    """Return the kernel's lines on locks of files under a directory."""
    inodes = {str(file.stat().st_ino) for file in path.rglob("*") if file.is_file()}
    return [line for line in Path("/proc/locks").read_text().splitlines() if line.split()[-3].split(":")[-1] in inodes]


class Stops:
    """Processes that are stopped (SIGSTOP), each for a while, and when any was."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._stopped: dict[int, float] = {}  # until when
        self._times: list[tuple[float, float, int]] = []  # from when, until when, whose

    def begin(self, pid: int, *, owner: int, kind: str, seconds: float) -> None:
        """Stop a process of the participant `owner`."""
        if pid in self._stopped or not _send(pid, signal.SIGSTOP):
            return
        now = time.monotonic()
        self._stopped[pid] = now + seconds
        self._times.append((now, now + seconds, owner))
        self._figures.stops[kind] += 1

    def end_due(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, until in self._stopped.items() if now >= until]:
            self.end_for(pid)

    def end_for(self, pid: int) -> None:
        if self._stopped.pop(pid, None) is not None:
            _send(pid, signal.SIGCONT)

    def end_all(self) -> None:
        for pid in list(self._stopped):
            self.end_for(pid)

    def overlap_s(self, began: float, ended: float, *, owner: int) -> float:
        """Return for how long, of that time, a process was stopped that could hold up `owner`.

        Those are its own for any time, and others for a moment: one that is stopped in the middle of a transaction
        holds up all who write. One that is stopped for long while it has a flight must not.
        """
        total, reached = 0.0, began
        for first, last, whose in self._times:  # they begin in this order
            if whose != owner and last - first >= LONG_S:
                continue
            start, end = max(first, reached), min(last, ended)
            if end > start:
                total, reached = total + end - start, end
        return total


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
