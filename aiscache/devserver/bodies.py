"""The bytes of an object, wherever they are: in memory, in a file, or made on demand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from aiscache.devserver.generate import content

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20  # bytes read from a file at a time


class Body(Protocol):
    """An object's bytes, readable by range."""

    size: int

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of the half-open interval; shorter where the object ends before."""


class MemoryBody:
    """Bytes held in memory."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of the half-open interval, without a copy where that is all of them."""
        if start == 0 and stop >= self.size:
            return self.data
        return self.data[start:stop]


class GeneratedBody:
    """Bytes made from the object's name, a size and a seed whenever they are read: a large bucket costs no memory."""

    __slots__ = ("name", "seed", "size")

    def __init__(self, name: str, size: int, seed: int) -> None:
        self.name = name
        self.size = size
        self.seed = seed

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of the half-open interval."""
        data = content(self.name, self.size, self.seed)
        return data if start == 0 and stop >= self.size else data[start:stop]


class FileBody:
    """Bytes of a file on disk, as it was at some moment."""

    __slots__ = ("mtime_ns", "path", "size")

    def __init__(self, path: str, size: int, mtime_ns: int = 0) -> None:
        self.path = path
        self.size = size
        self.mtime_ns = mtime_ns

    def stat(self) -> FileBody:
        """The same file as it is now; OSError where it is gone."""
        found = os.stat(self.path)
        return FileBody(self.path, found.st_size, found.st_mtime_ns)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of the half-open interval; OSError where the file is gone."""
        with open(self.path, "rb") as file:
            return os.pread(file.fileno(), max(0, stop - start), start)


def parts(body: Body) -> Iterator[bytes]:
    """The whole body in pieces of at most `CHUNK` bytes (one piece where it is in memory anyway)."""
    step = CHUNK if isinstance(body, FileBody) else max(1, body.size)
    for start in range(0, body.size, step):
        yield body.read(start, min(start + step, body.size))
