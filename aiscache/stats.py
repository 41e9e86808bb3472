"""Counters of what the cache did, for this process and for the machine.

They lie in one small mmapped file: each process counts in a slot of its own, so counting takes no lock between
processes and a killed process's counts stay. A slot is taken by a byte lock; who takes over a dead process's slot goes
on counting where it ended, and remembers where that was. The machine's counts are the sums over all slots.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from dataclasses import asdict, dataclass, field, fields

from aiscache.locks import ByteLocks

_SLOT_BYTES = 256
_SLOT_WORDS = _SLOT_BYTES // 8

# Fetches by how long they took: in less than each of these, in ms, and last those that took longer.
LATENCY_EDGES_MS = tuple(1 << n for n in range(11))
_LATENCIES = slice(_SLOT_WORDS - len(LATENCY_EDGES_MS) - 1, _SLOT_WORDS)  # the last words of a slot
_MAX_SLOTS = 65536
_MOST = 1 << 62  # nothing counts so far: a larger number is damage, and would soon not fit any more


def _counter(meaning: str) -> int:
    """Return a field that counts what `meaning` says."""
    return field(default=0, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What happened: for the machine since the cache directory was made, for a process since it opened the cache.

    `MEANINGS` has the meaning of each counter. `asdict()` gives plain numbers by name, as loggers of metrics take them.
    """

    hits_memory: int = _counter("reads answered from a segment in memory")
    hits_disk: int = _counter("reads answered from a segment on disk")
    bytes_memory: int = _counter("payload bytes of hits_memory")
    bytes_disk: int = _counter("payload bytes of hits_disk")
    misses: int = _counter("reads that found nothing, or another version")
    fetched_objects: int = _counter("objects that came from the cluster")
    fetched_bytes: int = _counter("payload bytes of fetched_objects")
    waits: int = _counter("reads that waited for another reader's fetch of the same object")
    staged: int = _counter("objects held for one read only, as the cache was full")
    rejected: int = _counter("fetched objects that were not kept: the cache was full")
    evicted_objects: int = _counter("objects removed, to make room or on request")
    evicted_bytes: int = _counter("bytes that came free with evicted_objects")
    checksum_failures: int = _counter("bytes in the cache that were not what was written; dropped and fetched again")
    fallbacks: int = _counter("local failures that became a direct read from the cluster")
    stall_ns: int = _counter("time that reads spent waiting for the cluster or for another's fetch, in nanoseconds")
    prefetched_objects: int = _counter(
        "objects among fetched_objects that a prefetcher fetched, ahead of their readers"
    )
    prefetched_bytes: int = _counter("payload bytes of prefetched_objects")
    prefetch_failures: int = _counter("fetches of a prefetcher that ended with an error; the readers try again")

    @property
    def hits(self) -> int:
        """Reads answered from the cache."""
        return self.hits_memory + self.hits_disk

    @property
    def hit_ratio(self) -> float:
        """Hits per read, 0.0 if nothing was read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    @property
    def stall_s(self) -> float:
        """Time that reads spent waiting for data, in seconds."""
        return self.stall_ns / 1e9

    def asdict(self) -> dict[str, float]:
        """Return all counters and the ratios by name, for JSON and for exporters."""
        return {**asdict(self), "hits": self.hits, "hit_ratio": self.hit_ratio, "stall_s": self.stall_s}

    def __sub__(self, earlier: CacheStats) -> CacheStats:
        """Return what happened between two readings."""
        return CacheStats(**{name: getattr(self, name) - getattr(earlier, name) for name in COUNTERS})


COUNTERS = tuple(field.name for field in fields(CacheStats))
MEANINGS = {field.name: str(field.metadata["meaning"]) for field in fields(CacheStats)}
_POSITION = {name: position for position, name in enumerate(COUNTERS)}


class Counters:
    """This process's slot in the file `path`, taken at the first count."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._locks = ByteLocks(path)
        self._lock = threading.Lock()
        self._slot = self._take_slot()
        self._base = list(self._slot)

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a counter; 0.3 us."""
        with self._lock:
            self._slot[_POSITION[name]] += amount

    def hit(self, tier: int, count: int, size_bytes: int) -> None:
        """Count hits in one tier (0 memory, 1 disk); 0.3 us."""
        slot = self._slot
        with self._lock:
            slot[tier] += count
            slot[tier + 2] += size_bytes

    def took(self, seconds: float) -> None:
        """Count a fetch by how long it took; 0.4 us."""
        bucket = min(int(seconds * 1000).bit_length(), len(LATENCY_EDGES_MS))
        with self._lock:
            self._slot[_LATENCIES.start + bucket] += 1

    def process(self) -> CacheStats:
        """Return what this process counted."""
        return _stats([value - base for value, base in zip(self._slot, self._base, strict=True)])

    def machine(self) -> CacheStats:
        """Return the sums over all processes that ever counted here."""
        return _stats(self._sums())

    def latencies(self) -> list[int]:
        """Return the numbers of fetches by how long they took (see LATENCY_EDGES_MS), of all processes."""
        return self._sums()[_LATENCIES]

    def _sums(self) -> list[int]:
        with open(self._path, "rb") as file:
            data = file.read()
        numbers = memoryview(data[: len(data) // _SLOT_BYTES * _SLOT_BYTES]).cast("Q")
        return [sum(numbers[position::_SLOT_WORDS]) for position in range(_SLOT_WORDS)]

    def close(self) -> None:
        """Give the slot back, and the file; its counts stay there. What is counted from here on goes nowhere."""
        self._slot = memoryview(bytearray(self._slot)).cast("Q")  # no lock: a forked child could wait for it forever
        self._locks.close()

    def _take_slot(self) -> memoryview:
        """Return a slot of the file, or of memory of our own if the file cannot have one more (a full disk)."""
        try:
            return self._shared_slot()
        except OSError:
            return memoryview(bytearray(_SLOT_BYTES)).cast("Q")

    def _shared_slot(self) -> memoryview:
        slot = next((index for index in range(_MAX_SLOTS) if self._locks.try_exclusive(index)), None)
        if slot is None:
            raise OSError(errno.EAGAIN, "more processes than slots")
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            start = slot * _SLOT_BYTES
            if os.fstat(fd).st_size < start + _SLOT_BYTES:
                os.posix_fallocate(fd, start, _SLOT_BYTES)
            page = start & -mmap.ALLOCATIONGRANULARITY
            view = memoryview(mmap.mmap(fd, start - page + _SLOT_BYTES, offset=page))[start - page :].cast("Q")
        finally:
            os.close(fd)
        for place, value in enumerate(view):
            if value > _MOST:
                view[place] = 0
        return view[:_SLOT_WORDS]


def _stats(words: list[int]) -> CacheStats:
    return CacheStats(**dict(zip(COUNTERS, words, strict=False)))
