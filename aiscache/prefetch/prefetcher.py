"""`Prefetcher`: the trainer's end of a pool. It starts no thread, waits for nothing, and keeps no object.

The pool is started when an epoch has an object that is not in the cache: a warm epoch needs none, and has none. It
stays for the epochs that follow, and ends when the prefetcher is closed or collected, or when this process ends.
"""

from __future__ import annotations

import logging
import threading
import weakref

import numpy as np

from aiscache.errors import CacheError
from aiscache.prefetch.job import Job, Rows
from aiscache.prefetch.messages import EPOCH, ROWS, pack_event
from aiscache.prefetch.page import CLOCK, CONSUMED, COPIED, RING_ROWS, UNKNOWN, PrefetchStats
from aiscache.prefetch.process import PoolProcess

_LOG = logging.getLogger("aiscache")

_STARTS = 3  # a pool that dies is started anew, for the next epoch, so many times in all


class Prefetcher:
    """Prefetches a job, epoch after epoch. One epoch at a time: a new one replaces the one before."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._lock = threading.Lock()
        self._current = 0
        self._starts = 0
        self._process: PoolProcess | None = None
        self._end = weakref.finalize(self, _nothing)

    def begin(self) -> Epoch:
        """Return a new epoch; the one before, if it goes on, goes on without prefetching."""
        with self._lock:
            self._current += 1
            return Epoch(self, self._current)

    def is_current(self, number: int) -> bool:
        """Tell whether no other epoch has begun since that one."""
        return number == self._current

    def stats(self) -> PrefetchStats:
        """Return what the pool did, and how far ahead it is; of the last pool, if there was more than one."""
        return PrefetchStats() if self._process is None else self._process.page.stats()

    @property
    def pid(self) -> int | None:
        """The pool's process id, None if none runs."""
        return None if self._process is None or not self._process.is_open else self._process.pid

    def close(self) -> None:
        """End the pool; at most a second. The next epoch starts another one."""
        with self._lock:
            self._current += 1
            self._close()

    def process(self, *, start: bool) -> PoolProcess | None:
        """Return the pool's process, started if need be; None if there is none, or too many died."""
        with self._lock:
            if self._process is not None and self._process.is_open:
                if self._process.is_alive:
                    return self._process
                _LOG.warning(
                    "the prefetcher ended with status %s: the reads fetch what is missing", self._process.close()
                )
            if not start or self._starts >= _STARTS:
                return None
            self._starts += 1
            try:
                self._process = PoolProcess(self.job)
            except OSError as error:
                _LOG.warning("cannot start the prefetcher: %s: the reads fetch what is missing", error)
                return None
            self._end = weakref.finalize(self, self._process.close)
            return self._process

    def lost(self, error: Exception) -> None:
        """Note that the pool is gone; this epoch goes on without."""
        with self._lock:
            _LOG.warning(
                "the prefetcher ended (%s): this epoch goes on without, the reads fetch what is missing", error
            )
            self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._end.detach()


class Epoch:
    """One pass over an order, as the trainer tells it to the pool. Calls on an epoch that was replaced do nothing."""

    def __init__(self, prefetcher: Prefetcher, number: int) -> None:
        self._prefetcher = prefetcher
        self._number = number
        self._told: PoolProcess | None = None  # the pool that knows of this epoch
        self._position = 0  # of the first row that is not published yet
        self._start = 0  # of the first row that the pool was told of
        self._clock = 0
        self._lost = False

    @property
    def told(self) -> int:
        """How many positions the pool was told of; it is done with them when its `ahead_positions` are as many."""
        return 0 if self._told is None else self._position - self._start

    def publish(self, rows: Rows) -> bool:
        """Tell the next rows of the order; False if the pool has no room for them now: try again later.

        At most RING_ROWS / 2 at a time. Rows of -1 are not ours. Until the first object is missing in the cache, this
        looks for each (1.5 us); after that the pool does.
        """
        if self._lost or not self._prefetcher.is_current(self._number):
            return True
        try:
            if self._told is None:
                rows = self._skip_present(rows)
                if not len(rows):
                    return True
                self._told = self._tell()
                if self._told is None:
                    return False
            return self._send(self._told, rows)
        except BlockingIOError:
            return False
        except (OSError, CacheError) as error:
            self._lost = True
            self._prefetcher.lost(error)
            return True

    def advance(self, clock: int, *, consumed: int | None) -> None:
        """Say that all positions before `clock` were asked for, and (None: not known) which were read; 0.5 us."""
        self._clock = clock
        if self._told is not None and self._told.is_open and self._prefetcher.is_current(self._number):
            page = self._told.page
            page.set_position(CONSUMED, self._number, UNKNOWN if consumed is None else consumed)
            page.set_position(CLOCK, self._number, clock)

    def _skip_present(self, rows: Rows) -> Rows:
        """Return the rows from the first on whose object is not in the cache."""
        job = self._prefetcher.job
        store = job.cache.store()
        ours = np.flatnonzero(rows >= 0)
        first = len(rows)
        if store is not None:
            keys, digests = job.identities(rows[ours])
            here = map(store.contains, keys, digests)
            first = next((int(place) for place, found in zip(ours, here, strict=True) if not found), len(rows))
        self._position += first
        return rows[first:]

    def _tell(self) -> PoolProcess | None:
        """Tell the pool that this epoch begins."""
        process = self._prefetcher.process(start=True)
        if process is None:
            self._lost = True
            return None
        self._start = self._position
        page = process.page
        page.set_position(CONSUMED, self._number, UNKNOWN)
        page.set_position(CLOCK, self._number, self._clock)
        process.send(pack_event(EPOCH, self._number, self._position))
        return process

    def _send(self, process: PoolProcess, rows: Rows) -> bool:
        """Put rows into the ring and say so.

        1. The rows are written. 2. The event is sent; if it cannot be now, the rows are written again another time.
        """
        if process.written + len(rows) - process.page.words[COPIED] > RING_ROWS:
            return False
        process.page.write_rows(process.written, rows)
        process.send(pack_event(ROWS, self._number, len(rows)))
        process.written += len(rows)
        self._position += len(rows)
        return True


def _nothing() -> None:
    """What is to be ended before a pool was started."""
