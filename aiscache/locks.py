"""Byte locks that the kernel frees when their holder dies.

`ByteLocks` holds open-file-description locks (Linux 3.15, `F_OFD_SETLK`) on single bytes of one file. Unlike POSIX ones
they exclude threads that have their own `ByteLocks`, and closing some other descriptor of the file does not drop them.
A lock belongs to the open file description, which a forked child shares: a child must open its own and close
the inherited one. The kernel keeps one linear list of locks per file: neighbouring bytes merge, scattered ones cost
80 us each once thousands are held.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from collections.abc import Iterable
from struct import Struct

_FLOCK = Struct("hhqqi4x")  # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid

_POLL_FIRST_S = 0.0002
_POLL_LONGEST_S = 0.01


class ByteLocks:
    """Locks on bytes of `path`, held through one descriptor of its own; `close()` or death frees them all."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def try_exclusive(self, offset: int) -> bool:
        """Take the byte for us alone; False if somebody else holds it in any way."""
        return self._set(fcntl.F_WRLCK, offset)

    def try_shared(self, offset: int) -> bool:
        """Take the byte together with others; False if somebody else holds it alone."""
        return self._set(fcntl.F_RDLCK, offset)

    def wait_exclusive(self, offset: int, *, timeout_s: float) -> bool:
        """Take the byte for us alone, waiting at most `timeout_s`; False past that.

        It polls, 0.2 to 10 ms apart: a blocking `fcntl` cannot be given a deadline without signals.
        """
        return self._wait(fcntl.F_WRLCK, offset, timeout_s)

    def wait_shared(self, offset: int, *, timeout_s: float) -> bool:
        """Take the byte together with others, waiting at most `timeout_s`; False past that."""
        return self._wait(fcntl.F_RDLCK, offset, timeout_s)

    def unlock(self, offset: int) -> None:
        """Free the byte; nothing happens after `close`, which freed it."""
        if self._fd >= 0:
            self._set(fcntl.F_UNLCK, offset)

    def is_free(self, offset: int) -> bool:
        """Tell whether nobody else holds the byte, without taking it."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
        return bool(_FLOCK.unpack(answer)[0] == fcntl.F_UNLCK)

    def stat(self) -> os.stat_result:
        """Return what `os.fstat` tells of the locked file."""
        return os.fstat(self._fd)

    def close(self) -> None:
        """Free all bytes held; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close_after(self, holders: Iterable[object]) -> None:
        """Close once the last of `holders` is gone; at once if there are none."""
        waiting = list(holders)
        tokens = list(range(len(waiting)))
        for holder in waiting:
            weakref.finalize(holder, self._holder_gone, tokens).atexit = False
        if not waiting:
            self.close()

    def _holder_gone(self, tokens: list[int]) -> None:
        if tokens.pop() == 0:  # atomic: holders may go at once in several threads, and one of them gets the last token
            self.close()

    def _wait(self, kind: int, offset: int, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        pause = _POLL_FIRST_S
        while not self._set(kind, offset):
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _POLL_LONGEST_S)
        return True

    def _set(self, kind: int, offset: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True
