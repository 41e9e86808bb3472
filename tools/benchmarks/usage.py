"""What a process and its children use: CPU seconds, memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import psutil


def cpu_s() -> float:
    """Return the CPU seconds of this process and of all its children, those that ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
            total += time.clock_gettime(_cpu_clock(child.pid)) + times.children_user + times.children_system
        except (psutil.NoSuchProcess, OSError):
            continue
    return total


def _cpu_clock(pid: int) -> int:
    """Return a process's CPU clock, as clock_getcpuclockid(3) does: nanoseconds, where /proc tells hundredths."""
    return ~pid << 3 | 2


def pss_bytes(pid: int) -> int:
    """Return the memory of a process, shared pages by the number of those who share them; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def all_pss_bytes() -> int:
    """Return the memory of this process and of its children."""
    pids = [child.pid for child in psutil.Process().children(recursive=True)]
    return sum(map(pss_bytes, [os.getpid(), *pids]))


def anonymous_bytes(pid: int) -> int:
    """Return the memory that a process shares with nobody and with no file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def disk_usage_bytes(directory: str) -> int:
    """Return the bytes that a directory takes."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
