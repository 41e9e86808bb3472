"""The epoch that the pool is in: the plan, its rows, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from aiscache.prefetch.job import Job, Rows
from aiscache.prefetch.page import CLOCK, CONSUMED, DROP, UNKNOWN, Page, PrefetchStats
from aiscache.prefetch.plan import Outcome, Plan

_FORGET = 2 << 20  # rows that the clock has passed are forgotten in steps of half as many
_FETCHED = (Outcome.KEPT, Outcome.STAGED)


class RunningEpoch:
    """Epoch `number`, whose order begins at position `start` (what is before it needs no pool)."""

    def __init__(self, job: Job, page: Page, *, number: int, start: int, totals: PrefetchStats | None = None) -> None:
        self.number = number
        self._job = job
        self._page = page
        self._first = start  # the position of the first of `_rows`
        # The rest is for what is left in segments that are half read, and for segments that are still mapped.
        self._plan = Plan(
            window_bytes=job.share_bytes * 3 // 4,
            chunk=max(32, 2 * job.connections),
            start=start,
            clocked=not job.keep_only,
        )
        self._rows: Rows = np.empty(0, np.int64)
        self._totals = totals or PrefetchStats()  # of the epochs before
        self._fetched_objects = self._fetched_bytes = 0

    def followed_by(self, number: int, *, start: int, workers: Iterable[int]) -> RunningEpoch:
        """Return the next epoch, with the same workers; what they still do for this one is of no more use."""
        following = RunningEpoch(self._job, self._page, number=number, start=start, totals=self.stats())
        for worker in workers:
            following.join(worker)
        return following

    def extend(self, rows: Rows) -> None:
        """Learn the next rows of the order."""
        self._rows = np.concatenate((self._rows, rows))
        self._plan.extend(self._job.sizes(rows))

    def move(self) -> None:
        """Look at the clock.

        Where the trainer cannot tell what its readers are done with, that is what lies a quarter of the lookahead
        behind the clock.
        """
        clock = self._page.position(CLOCK, self.number)
        if clock == UNKNOWN:  # another epoch has begun, of which we shall hear
            return
        consumed = self._page.position(CONSUMED, self.number)
        if consumed == UNKNOWN:
            consumed = self._plan.position_behind(self._job.lookahead_bytes // 4)
        self._plan.move(clock, consumed=consumed)
        if min(clock - self._first, len(self._rows)) > _FORGET:
            self._rows = self._rows[_FORGET // 2 :].copy()
            self._first += _FORGET // 2
        self._page.set_position(DROP, self.number, consumed)

    def join(self, worker: int) -> None:
        """Note a new worker."""
        self._plan.join(worker)

    def leave(self, worker: int) -> None:
        """Note a worker's death."""
        self._plan.leave(worker)

    def settle(self, worker: int, position: int, outcome: Outcome, size: int) -> None:
        """Note what became of a position."""
        self._plan.settle(worker, position, outcome)
        if outcome in _FETCHED:
            self._fetched_objects += 1
            self._fetched_bytes += size

    def assign(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield for each worker that is to begin something its (position, row)s."""
        for worker, positions in self._plan.assign():
            places = np.array(positions) - self._first
            yield worker, list(zip(positions, self._rows[places].tolist(), strict=True))

    def waits(self) -> bool:
        """Tell whether something waits for the clock."""
        return self._plan.waits()

    def stats(self, *, workers: int = 0, deaths: int = 0) -> PrefetchStats:
        """Return what the pool did in this epoch and before it."""
        counts, totals = self._plan.counts, self._totals
        positions, size = self._plan.ahead()
        return replace(
            totals,
            objects=totals.objects + self._fetched_objects,
            bytes=totals.bytes + self._fetched_bytes,
            staged=totals.staged + counts[Outcome.STAGED],
            present=totals.present + counts[Outcome.PRESENT],
            left=totals.left + counts[Outcome.LEFT],
            failed=totals.failed + counts[Outcome.FAILED],
            no_room=totals.no_room + counts[Outcome.NO_ROOM],
            ahead_positions=positions,
            ahead_bytes=size,
            workers=workers,
            deaths=deaths,
        )
