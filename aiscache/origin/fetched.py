"""What callers of `Origin.fetch` give and get: a `Sink` that opens a `Body` for each object, a `Fetched` per object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from aiscache.errors import OriginError
from aiscache.keys import ObjectRef


class Body(Protocol):
    """Where one object's bytes go."""

    length: int

    def write(self, chunks: Sequence[bytes], /) -> None:
        """Take the next bytes; never more than `length` in all."""
        ...

    def restart(self) -> None:
        """Begin anew: what was written so far is void."""
        ...


class Sink(Protocol):
    """Where bodies go. Called in the thread that iterates `fetch`."""

    def open(self, index: int, size: int, /) -> Body:
        """Return a body of exactly `size` bytes for the object at `index` of the refs.

        Called when the cluster has told the size. Called again for the same index if another try turns out to have
        another size; the earlier body is then abandoned. An exception from here, or from the body, ends the whole
        `fetch` with it.
        """
        ...


class HeapBody:
    """A body in this process's memory: `data` is its bytes, writable."""

    __slots__ = ("_position", "data", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self.data = np.empty(length, np.uint8).data  # not zeroed, and mapped by the allocator if it is large
        self._position = 0

    def write(self, chunks: Sequence[bytes]) -> None:
        """Take the next bytes."""
        for chunk in chunks:
            end = self._position + len(chunk)
            self.data[self._position : end] = chunk
            self._position = end

    def restart(self) -> None:
        """Begin anew."""
        self._position = 0

    def __bytes__(self) -> bytes:
        return bytes(self.data)


class HeapSink:
    """A sink of `HeapBody`s, by index."""

    def __init__(self) -> None:
        self.bodies: dict[int, HeapBody] = {}

    def open(self, index: int, size: int) -> HeapBody:
        """Return a fresh body."""
        body = self.bodies[index] = HeapBody(size)
        return body


@dataclass(slots=True, eq=False)  # not frozen: that alone would cost 2 us an object
class Fetched:
    """The end of one object's transfer: `body` got its `size` verified bytes, or `error` says why not.

    `index` is its place in the refs; `took_s` the time from the first request to the end, tries in between included.
    `target` is the URL of the node that answered last, "" if none did. `checksum` and `version` are what the cluster
    said with the bytes. `verified` tells whether the bytes were held against a checksum (a bucket may have none, and
    the output of an ETL has none). `xxh64` is that of the bytes, with seed 0, computed as they came.
    `ready` is how many more have ended already, and come without a wait.
    """

    index: int
    ref: ObjectRef
    body: Body | None = field(default=None, repr=False)
    size: int = 0
    xxh64: int = 0
    error: OriginError | None = None
    attempts: int = 1
    target: str = ""
    checksum: str = ""
    checksum_type: str = ""
    version: str = ""
    verified: bool = False
    took_s: float = 0.0
    ready: int = 0

    def result(self) -> Body:
        """Return the body, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.body is not None  # noqa: S101 -- either there is an error or a body
        return self.body
