"""What callers of `Origin.fetch` give and get: a `Sink` for the bytes, a `Fetched` per object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from aiscache.errors import OriginError
from aiscache.keys import ObjectRef


class Sink(Protocol):
    """Where bodies go. Called in the thread that iterates `fetch`."""

    def open(self, index: int, size: int) -> memoryview:
        """Return a writable buffer of exactly `size` bytes for the object at `index` of the refs.

        Called when the cluster has told the size. Called again for the same index if another try turns out to have
        another size; the earlier buffer is then abandoned. An exception from here ends the whole `fetch` with it.
        """
        ...


class HeapSink:
    """A sink of `bytearray`s, for few and small objects, and for tests."""

    def __init__(self) -> None:
        self.buffers: dict[int, bytearray] = {}

    def open(self, index: int, size: int) -> memoryview:
        """Return a fresh buffer."""
        buffer = self.buffers[index] = bytearray(size)
        return memoryview(buffer)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The end of one object's transfer: `buffer` holds its `size` verified bytes, or `error` says why not.

    `index` is its place in the refs; `took_s` the time from the first request to the end, tries in between included.
    `target` is the URL of the node that answered last, "" if none did. `checksum` and `version` are what the cluster
    said with the bytes. `verified` tells whether the bytes were held against a checksum (a bucket may have none, and
    the output of an ETL has none).
    """

    index: int
    ref: ObjectRef
    buffer: memoryview | None = field(default=None, repr=False)
    size: int = 0
    error: OriginError | None = None
    attempts: int = 1
    target: str = ""
    checksum: str = ""
    checksum_type: str = ""
    version: str = ""
    verified: bool = False
    took_s: float = 0.0

    def result(self) -> memoryview:
        """Return the buffer, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.buffer is not None  # noqa: S101 -- either there is an error or a buffer
        return self.buffer
