"""Who uses a cache: the processes that have one of its files open or a segment of it mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_GONE = " (deleted)"  # how /proc marks a file that was removed
_LONGEST_COMMAND = 60


class User(NamedTuple):
    """A process, and its command line, shortened for people."""

    pid: int
    command: str


def users_of(directory: Path) -> list[User]:
    """Return the processes that use a cache directory, without this one; those of other users cannot be seen."""
    prefix = os.path.realpath(directory) + "/"
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    return [User(pid, _command(pid)) for pid in pids if pid != os.getpid() and _uses(pid, prefix)]


def _uses(pid: int, prefix: str) -> bool:
    """Tell whether a process has the cache open, or a segment mapped; its counters stay mapped until it ends."""
    counters = prefix + "stats"
    files = [path for path in _open_files(pid) if path != counters]
    return _is_under(prefix, files) or _is_under(prefix, _mapped_segments(pid))


def _is_under(prefix: str, paths: list[str]) -> bool:
    return any(path.startswith(prefix) and not path.endswith(_GONE) for path in paths)


def _open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    try:
        for name in os.listdir(folder):
            found.append(os.readlink(f"{folder}/{name}"))
    except OSError:  # ended, or another user's
        pass
    return found


def _mapped_segments(pid: int) -> list[str]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [line.split(maxsplit=5)[5] for line in lines if ".seg" in line]


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return "?"
    text = " ".join(" ".join(words).split())
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 3] + "..."
