"""The pool's process, as its parent has it: started as a program of its own, ended by closing its link.

Not through `multiprocessing`: nothing of the parent is copied or imported again, so that it works from notebooks and
from scripts without a main guard, and the process has no torch. Settings and credentials go through the link.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import aiscache
from aiscache.prefetch.job import Job
from aiscache.prefetch.messages import link
from aiscache.prefetch.page import Page

_GRACE_S = 0.9

_alive: weakref.WeakSet[PoolProcess] = weakref.WeakSet()


class PoolProcess:
    """A running pool: its page and its link. `written` counts the rows that went into the page's ring."""

    def __init__(self, job: Job) -> None:
        self.written = 0
        self._owner = os.getpid()
        self.page = Page.make()
        self._link, theirs = link()
        try:
            with theirs:
                self._process = _start(theirs.fileno(), self.page.fd)
            _alive.add(self)
            self._link.send(pickle.dumps(job))
            self._link.setblocking(False)
        except BaseException:
            self._link.close()
            self.page.close()
            if hasattr(self, "_process"):
                self.close()
            raise
        self.page.close()  # it stays mapped

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_open(self) -> bool:
        """Whether it was not closed, by us or by a fork."""
        return self._link.fileno() >= 0

    def send(self, event: bytes) -> None:
        """Send an event; BlockingIOError if it has no room now, another OSError if the pool is gone."""
        self._link.send(event)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> int | None:
        """End the process, at once or within a second; return its status. Nothing happens in a forked child."""
        self._link.close()
        if os.getpid() != self._owner:
            return None
        try:
            self._process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return self._process.returncode

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, so that the pool sees the parent's end."""
        self._link.close()
        self._process.returncode = 0  # it is not our child


def _start(stdin: int, page_fd: int) -> subprocess.Popen[bytes]:
    """Start the program.

    Ctrl-C in a terminal goes to all its processes: the child ignores it, and until it can, inherits it blocked. It
    starts in "/", as the working directory comes first where it looks for modules, and goes back then.
    """
    command = [sys.executable, "-m", "aiscache.prefetch", str(page_fd), str(os.getpid()), os.getcwd()]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(  # noqa: S603  (this very interpreter)
            command, stdin=stdin, stdout=subprocess.DEVNULL, pass_fds=(page_fd,), cwd="/", env=_environment()
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _environment() -> dict[str, str]:
    """Return our environment, in which this very package is found first, and numpy starts no threads."""
    given = os.environ.get("PYTHONPATH", "")
    paths = [
        str(Path(aiscache.__file__).parents[1]),
        *(os.path.abspath(path) for path in given.split(os.pathsep) if path),
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _after_fork() -> None:
    for process in list(_alive):
        with contextlib.suppress(OSError):
            process.abandon()


os.register_at_fork(after_in_child=_after_fork)
