"""What a pool works on: the cache, the listings, the clusters, and the limits. It crosses to the pool once."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from aiscache.cache import Cache
from aiscache.fill import Wanted
from aiscache.manifest import Manifest
from aiscache.origin import Origin
from aiscache.prefetch.plan import Sizes

Rows = np.ndarray[Any, np.dtype[np.int64]]

NOT_OURS = -1  # a position of the order that names no row of any listing
_UNKNOWN_BYTES = 1 << 20  # what an object of unknown size is taken for
_CONNECTIONS, _LEAST_CONNECTIONS = 64, 32  # of a pool, of a worker
_RECORD_BYTES = 512  # about what a record takes besides the payload


def default_processes() -> int:
    """Return how many workers a pool has by default: half of the cores that this process may use, at most 4."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


def default_connections(processes: int) -> int:
    """Return how many requests each worker of a pool has in flight by default: 32, and 64 between all of them.

    A pool fetches as many objects a second as it has requests in flight, divided by how long one takes: 64 are 3,200 a
    second where each takes 20 ms.
    """
    return max(_LEAST_CONNECTIONS, _CONNECTIONS // processes)


@dataclass(frozen=True)
class Job:
    """Fetch rows of `manifests` (counted through: the second begins where the first ends) from `origins` into `cache`.

    `processes` workers have `connections` requests each in flight, and together hold at most `lookahead_bytes` of
    objects that the cache has no room for; with `keep_only` none are held: what does not fit is not fetched. Pickles
    small: to settings and paths.
    """

    cache: Cache
    manifests: tuple[Manifest, ...]
    origins: Mapping[str, Origin]
    processes: int
    connections: int
    lookahead_bytes: int
    keep_only: bool = False

    @property
    def share_bytes(self) -> int:
        """What one worker may hold for one read."""
        return self.lookahead_bytes // self.processes

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.manifests)))

    @property
    def count(self) -> int:
        """The number of rows."""
        return self._ends[-1]

    def locate(self, row: int) -> tuple[Manifest, int]:
        """Return the listing that has a row, and its place there."""
        number = bisect.bisect_right(self._ends, row)
        return self.manifests[number], row - (self._ends[number - 1] if number else 0)

    def wanted(self, row: int) -> Wanted:
        """Return what to fetch for a row; 4 us."""
        manifest, place = self.locate(row)
        return Wanted(manifest.ref(place), manifest.key(place), manifest.digests.item(place))

    def sizes(self, rows: Rows) -> Sizes:
        """Return the bytes that each row will take in the cache, negative for what is not ours."""
        sizes = np.full(len(rows), -1, np.int64)
        for manifest, start, end in zip(self.manifests, [0, *self._ends], self._ends, strict=False):
            ours = (rows >= start) & (rows < end)
            found = manifest.sizes[rows[ours] - start]
            sizes[ours] = np.where(found < 0, _UNKNOWN_BYTES, found) + _RECORD_BYTES
        return sizes

    def identities(self, rows: Rows) -> tuple[list[bytes], list[int]]:
        """Return the keys and the version digests of rows, all of which are ours; 0.3 us each."""
        keys: list[bytes] = [b""] * len(rows)
        digests = [0] * len(rows)
        for manifest, start, end in zip(self.manifests, [0, *self._ends], self._ends, strict=False):
            ours = np.flatnonzero((rows >= start) & (rows < end))
            for position, key, digest in zip(ours.tolist(), *manifest.identities(rows[ours] - start), strict=True):
                keys[position], digests[position] = key, digest
        return keys, digests
