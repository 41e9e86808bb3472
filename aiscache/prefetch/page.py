"""The page: memory that trainer, pool and workers share, for what changes too often to be sent.

Each number has one writer. Positions carry the number of their epoch in the upper bits, so that a reader of one word
knows of which epoch it is: work for an epoch that was replaced is dropped without a message. Behind the numbers lies a
ring of rows, through which the order of an epoch goes from the trainer to the pool.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RING_ROWS = 1 << 17
_RING_AT = 4096
_EPOCH_SHIFT = 40
_POSITION = (1 << _EPOCH_SHIFT) - 1

# One word each. The trainer writes the first two, the pool the others.
CLOCK, CONSUMED, COPIED, DROP, STATS = range(5)

UNKNOWN = _POSITION  # CONSUMED when nobody can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchStats:
    """What a pool did since it was started, and how far ahead of the loop it is now."""

    objects: int = 0  # objects that it fetched, kept or staged
    bytes: int = 0  # their bytes
    staged: int = 0  # those of them that were held for one read, as the cache was full
    present: int = 0  # positions whose object was in the cache already
    left: int = 0  # positions left to the loop's readers, which came first, or to others who fetch them
    failed: int = 0  # fetches that ended with an error; their readers will try again
    no_room: int = 0  # times that a worker had no space to stage in, and waited for the clock
    ahead_positions: int = 0  # positions that are ready and that the loop did not ask for yet
    ahead_bytes: int = 0  # their bytes
    workers: int = 0  # worker processes that are alive
    deaths: int = 0  # worker processes that died, and were replaced or not

    def asdict(self) -> dict[str, int]:
        """Return all numbers by name."""
        return asdict(self)


_NAMES = tuple(PrefetchStats.__dataclass_fields__)


class Page:
    """The shared memory behind a descriptor, mapped. The one who makes it passes `fd` on."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _RING_AT + 8 * RING_ROWS)
        self.words = memoryview(self._memory).cast("Q")[: _RING_AT // 8]
        self.ring: np.ndarray[Any, np.dtype[np.int64]] = np.frombuffer(
            self._memory, np.int64, count=RING_ROWS, offset=_RING_AT
        )

    @classmethod
    def make(cls) -> Page:
        """Return a new page, all zero; memory is taken as it is used, 1 MiB at most."""
        fd = os.memfd_create("aiscache-prefetch", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _RING_AT + 8 * RING_ROWS)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Close the descriptor; the memory is unmapped with the last view of it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def epoch_now(self) -> int:
        """Return the number of the epoch that the trainer is in."""
        return self.words[CLOCK] >> _EPOCH_SHIFT

    def position(self, word: int, epoch: int) -> int:
        """Return a position of that epoch; once it was replaced, all of it has passed."""
        number, position = divmod(self.words[word], 1 << _EPOCH_SHIFT)
        return position if number == epoch else _POSITION

    def set_position(self, word: int, epoch: int, position: int) -> None:
        """Write a position."""
        self.words[word] = epoch << _EPOCH_SHIFT | position

    def rows(self, first: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return a copy of the ring's entries from the `first` ever written on."""
        return self.ring[np.arange(first, first + count) % RING_ROWS]

    def write_rows(self, first: int, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Write the entries from the `first` ever written on."""
        self.ring[np.arange(first, first + len(rows)) % RING_ROWS] = rows

    def stats(self) -> PrefetchStats:
        """Return what the pool wrote last."""
        return PrefetchStats(**dict(zip(_NAMES, self.words[STATS : STATS + len(_NAMES)].tolist(), strict=True)))

    def set_stats(self, stats: PrefetchStats) -> None:
        """Write what the pool did."""
        for place, value in enumerate(stats.asdict().values()):
            self.words[STATS + place] = value
