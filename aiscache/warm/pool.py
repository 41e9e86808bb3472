"""Driving the prefetcher's pool without a training loop: it is told of all rows, and its clock never moves."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiscache.prefetch import Job, Prefetcher, PrefetchStats
from aiscache.prefetch.job import Rows

_POLL_S = 0.02
_BLOCK = 1 << 15  # rows told at a time
HOPELESS = 64  # failures without a success in between, after which the rest is not tried


def fetch_with_pool(job: Job, rows: Rows, *, progress: Callable[[PrefetchStats], None]) -> tuple[PrefetchStats, float]:
    """Let a pool fetch rows; return what it did, and in how many seconds: without those in which it ends afterwards.

    It may leave some rows: because they failed, or because it died itself.
    """
    began = time.monotonic()
    prefetcher = Prefetcher(job)
    try:
        epoch = prefetcher.begin()
        sent, hope = 0, _Hope()
        while True:
            if sent < len(rows) and epoch.publish(rows[sent : sent + _BLOCK]):
                sent += _BLOCK
            told = prefetcher.stats()
            progress(told)
            over = sent >= len(rows) and told.ahead_positions >= epoch.told
            if over or hope.is_lost(told) or not _works(prefetcher):
                return told, time.monotonic() - began
            time.sleep(_POLL_S)
    finally:
        prefetcher.close()


def _works(prefetcher: Prefetcher) -> bool:
    """Tell whether a pool runs that has a worker; one that has just been started has told nothing yet."""
    told = prefetcher.stats()
    return prefetcher.process(start=False) is not None and (told.workers > 0 or told.deaths == 0)


class _Hope:
    """Whether the cluster still gives anything."""

    def __init__(self) -> None:
        self._objects = 0
        self._failed = 0

    def is_lost(self, told: PrefetchStats) -> bool:
        """Tell whether so many fetches failed since the last one that did not."""
        if told.objects > self._objects:
            self._objects, self._failed = told.objects, told.failed
        return told.failed - self._failed >= HOPELESS
