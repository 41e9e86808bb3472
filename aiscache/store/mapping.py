"""A file mapped for reading, without a file descriptor kept per mapping.

The standard library's `mmap` duplicates the descriptor for as long as the mapping lives (until Python 3.13), and a
large cache has more segments than a process may have descriptors. It also refuses to map past the end of a file, which
is what lets one mapping serve a segment that still grows. So it only gives the range of addresses here, and unmaps it:
in C, where Ctrl-C cannot get lost, as it does in a function that is called when something is freed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path

import numpy as np

from aiscache.view import View

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_FAILED = ctypes.c_void_p(-1).value
_MAP_FIXED = 0x10  # put it in place of what is mapped there


class Mapping:
    """`size` bytes of a file, mapped read-only and shared; what lies past the file's end must not be touched.

    The memory is unmapped when the mapping and all views of it are gone: `block` lives as long as the memory.
    """

    __slots__ = ("array", "block")

    def __init__(self, path: Path, size: int) -> None:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        array = np.frombuffer(block, dtype=np.uint8)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            answer = _LIBC.mmap(array.ctypes.data, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, fd, 0)
        finally:
            os.close(fd)
        if answer == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
        self._hold(block)

    def release(self) -> bool:
        """Unmap, unless a view lives: then nothing changes and the answer is False."""
        watch = weakref.ref(self.block)
        del self.block, self.array
        block = watch()
        if block is not None:
            self._hold(block)
        return block is None

    def _hold(self, block: mmap.mmap) -> None:
        self.block = block
        self.array = np.frombuffer(block, dtype=np.uint8).view(View)
