"""A libcurl multi handle with its easy handles and cached connections: what one `fetch` at a time works with.

Fork: the child shares the parent's sockets, and libcurl would write TLS goodbyes to them when it cleans up. So in
the child `disarm` points every one of their descriptors at /dev/null; then clearing up is harmless.
"""

from __future__ import annotations

import os
import stat
import time
import weakref
from contextlib import suppress

import pycurl

from aiscache.origin.settings import OriginSettings
from aiscache.origin.wire import Wire

_SELECT_LIMIT = 1024  # FD_SETSIZE: pycurl waits with select(2), which cannot see higher descriptors
_BLIND_WAIT_S = 0.002
_IDLE_CONNECTIONS = 256

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Wires over one multi handle. Not thread-safe: a thread borrows it."""

    def __init__(self, settings: OriginSettings) -> None:
        self._settings = settings
        self.multi = pycurl.CurlMulti()
        # Without this libcurl keeps 4 per transfer under way, so the end of each batch would close most of them.
        self.multi.setopt(pycurl.M_MAXCONNECTS, _IDLE_CONNECTIONS)
        self.sockets: dict[int, int] = {}  # descriptor -> inode of every socket opened, closed ones included
        self.forked = False
        self._idle: list[Wire] = []
        self._by_curl: dict[pycurl.Curl, Wire] = {}
        _engines.add(self)

    def wire(self) -> Wire:
        """Return an idle wire, or a new one."""
        if self._idle:
            return self._idle.pop()
        wire = Wire(self._settings, self.sockets)
        self._by_curl[wire.curl] = wire
        return wire

    def release(self, wire: Wire) -> None:
        """Take a wire back; libcurl closes its connection if the response was not read to its end."""
        self.multi.remove_handle(wire.curl)
        wire.drop()
        self._idle.append(wire)

    def ended(self) -> list[tuple[Wire, int, str]]:
        """Let libcurl work, and return the wires that came to an end, with its code and words; does not block."""
        self.multi.perform()
        _queued, good, bad = self.multi.info_read()
        wires = [(self._by_curl[curl], 0, "") for curl in good]
        return wires + [(self._by_curl[curl], code, message) for curl, code, message in bad] if bad else wires

    def wait(self, timeout_s: float) -> None:
        """Wait until something moves, at most `timeout_s`."""
        due_ms = self.multi.timeout()
        if due_ms == 0:
            return
        if due_ms > 0:
            timeout_s = min(timeout_s, due_ms / 1000)
        if self.sockets and max(self.sockets) >= _SELECT_LIMIT:
            timeout_s = min(timeout_s, _BLIND_WAIT_S)
        if self.multi.select(timeout_s) < 0:
            # Nothing to select on: a name is being resolved, or all descriptors are too high.
            time.sleep(min(timeout_s, _BLIND_WAIT_S))

    def close(self) -> None:
        """Close all connections and handles."""
        self.multi.close()
        for wire in self._by_curl.values():
            wire.curl.close()
        self._by_curl.clear()
        self._idle.clear()

    def disarm(self) -> None:
        """In a forked child: make sure that no byte goes to the parent's connections."""
        self.forked = True
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd, inode in self.sockets.items():
            with suppress(OSError):
                found = os.fstat(fd)
                if found.st_ino == inode and stat.S_ISSOCK(found.st_mode):
                    os.dup2(null, fd, inheritable=False)
        os.close(null)


def disarm_all() -> None:
    """Disarm every engine of the process; runs in a child right after fork."""
    for engine in list(_engines):
        engine.disarm()


os.register_at_fork(after_in_child=disarm_all)
