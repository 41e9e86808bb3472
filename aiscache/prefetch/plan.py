"""What the pool fetches next: a pure state machine, without clocks of its own, without input or output.

Events come in: more of the order is known, the loop has read so far, a worker joined or died, a position was settled.
`assign` answers with what each worker is to do. An epoch has one plan; a new epoch begins with a new one.

Bytes that are being fetched, or are held for one read only (staged), count against the window of the worker that has
them. What is kept in the cache does not: a data set that fits is fetched to the end of the epoch without a pause, and
one that does not is fetched as far ahead as the window reaches.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

_ATTEMPTS = 2  # how often a position is given out before it is left to the loop's own readers
_FORGET = 1 << 20  # positions that the clock has passed are forgotten in steps of this many

Sizes = np.ndarray[Any, np.dtype[np.int64]]


class Outcome(IntEnum):
    """How a worker settled a position."""

    PRESENT = 0  # it was in the cache already
    KEPT = 1  # fetched, and kept in the cache
    STAGED = 2  # fetched, and held for one read: the cache was full
    LEFT = 3  # not fetched: its reader came first, or somebody else is fetching it
    FAILED = 4  # the cluster did not give it
    NO_ROOM = 5  # not fetched: there is no space for it now


@dataclass(slots=True)
class _Worker:
    """What one worker has: positions to fetch, and positions that it staged, with their bytes."""

    assigned: dict[int, int] = field(default_factory=dict)
    staged: list[tuple[int, int]] = field(default_factory=list)  # a heap: the first to be consumed is first
    held_bytes: int = 0
    blocked: bool = False  # had no room; worth another try when the clock has moved


class Plan:
    """The plan of one epoch, whose order begins at position `start`.

    `window_bytes` is for each worker; an object that is larger is only given to a worker that holds nothing else.
    `chunk` is how many positions are given out at a time; a worker has at most two chunks. Without a clock nothing is
    given out twice: no reader makes room, and who started the pool sees to what is left.
    """

    def __init__(self, *, window_bytes: int, chunk: int, start: int = 0, clocked: bool = True) -> None:
        self._window_bytes = window_bytes
        self._most_attempts = _ATTEMPTS if clocked else 1
        self._clocked = clocked
        self._chunk = chunk
        self._sizes: Sizes = np.empty(0, np.int64)
        self._bytes_before: Sizes = np.zeros(1, np.int64)  # for each position, and the end, what all before it take
        self._base = start  # the position of the first of `_sizes`
        self._next = start  # all before it were given out once, or passed
        self._clock = start
        self._workers: dict[int, _Worker] = {}
        self._returned: list[int] = []  # a heap of positions to be given out again
        self._attempts: dict[int, int] = {}
        self.counts = dict.fromkeys(Outcome, 0)

    # ---- events

    def extend(self, sizes: Sizes) -> None:
        """Learn the next positions of the order, by their sizes in bytes; a negative size is not for the pool."""
        self._sizes = np.concatenate((self._sizes, sizes))
        sums = self._bytes_before[-1] + np.maximum(sizes, 0).cumsum()
        self._bytes_before = np.concatenate((self._bytes_before, sums))

    def move(self, clock: int, *, consumed: int) -> None:
        """Note that the loop asked for all positions before `clock`, and is done with all before `consumed`."""
        if clock > self._clock:
            self._clock = clock
            for worker in self._workers.values():
                worker.blocked = False
        for worker in self._workers.values():
            while worker.staged and worker.staged[0][0] < consumed:
                worker.held_bytes -= heapq.heappop(worker.staged)[1]
                worker.blocked = False
        if min(self._clock, self._end) - self._base >= 2 * _FORGET:
            self._forget(_FORGET)

    def join(self, worker: int) -> None:
        """Note that a worker is there, with nothing to do."""
        self._workers[worker] = _Worker()

    def leave(self, worker: int) -> None:
        """Note that a worker died, and with it what it had staged: others get what is still of use."""
        gone = self._workers.pop(worker)
        for position in gone.assigned:
            self._again(position)
        for position, _ in gone.staged:
            self._return(position)

    def settle(self, worker: int, position: int, outcome: Outcome) -> None:
        """Note what became of a position that a worker had; ignored if it does not have it."""
        member = self._workers.get(worker)
        size = None if member is None else member.assigned.pop(position, None)
        if member is None or size is None:
            return
        self.counts[outcome] += 1
        if outcome is Outcome.STAGED:
            heapq.heappush(member.staged, (position, size))
            return
        member.held_bytes -= size
        if outcome is Outcome.FAILED:
            self._again(position)
        elif outcome is Outcome.NO_ROOM and self._clocked and size <= self._window_bytes:
            member.blocked = True
            self._return(position)

    # ---- what is to be done

    def assign(self) -> list[tuple[int, list[int]]]:
        """Return (worker, positions) to be started now, the soonest needed first; all of it is on record then."""
        started = []
        for number, worker in sorted(self._workers.items(), key=lambda item: len(item[1].assigned)):
            if len(worker.assigned) <= self._chunk and not worker.blocked:
                positions = list(self._take(worker))
                if positions:
                    started.append((number, positions))
        return started

    def waits(self) -> bool:
        """Tell whether the clock's next move may change something: work waits for it, or staged bytes do."""
        behind = any(worker.staged for worker in self._workers.values())
        return behind or bool(self._returned) or self._next < self._end

    def done(self) -> bool:
        """Tell whether all of the order that is known was settled, or is left to the loop's readers."""
        busy = any(worker.assigned for worker in self._workers.values())
        return not busy and self._peek() is None

    # ---- telling

    def ahead(self) -> tuple[int, int]:
        """Return how many positions, and bytes, the pool is ahead of the clock without a gap."""
        open_positions = [min(worker.assigned) for worker in self._workers.values() if worker.assigned]
        frontier = min([self._next, *self._returned[:1], *open_positions])
        if frontier <= self._clock:
            return 0, 0
        sums = self._bytes_before
        return frontier - self._clock, int(sums[frontier - self._base] - sums[self._clock - self._base])

    def position_behind(self, size_bytes: int) -> int:
        """Return the first position that is at most so many bytes behind the clock."""
        clock = min(self._clock, self._end)
        sums = self._bytes_before
        return self._base + int(np.searchsorted(sums, sums[clock - self._base] - size_bytes))

    def held_bytes(self) -> dict[int, int]:
        """Return the bytes that count against each worker's window."""
        return {number: worker.held_bytes for number, worker in self._workers.items()}

    # ----

    @property
    def _end(self) -> int:
        return self._base + len(self._sizes)

    def _forget(self, count: int) -> None:
        """Forget the first positions, all of which have passed."""
        self._sizes = self._sizes[count:].copy()
        self._bytes_before = self._bytes_before[count:].copy()
        self._base += count
        self._next = max(self._next, self._base)
        self._attempts = {position: n for position, n in self._attempts.items() if position >= self._clock}

    def _take(self, worker: _Worker) -> Iterator[int]:
        """Give a worker up to a chunk of positions, as far as its window reaches."""
        for _ in range(self._chunk):
            position = self._peek()
            if position is None:
                return
            size = int(self._sizes[position - self._base])
            if worker.held_bytes and worker.held_bytes + size > self._window_bytes:
                return
            if self._returned and self._returned[0] == position:
                heapq.heappop(self._returned)
            else:
                self._next = position + 1
            worker.assigned[position] = size
            worker.held_bytes += size
            yield position

    def _peek(self) -> int | None:
        """Return the position that is to be given out next; what the clock has passed is skipped."""
        while self._returned and self._returned[0] < self._clock:
            heapq.heappop(self._returned)
        if self._returned:
            return self._returned[0]
        self._next = max(self._next, min(self._clock, self._end))
        while self._next < self._end and self._sizes[self._next - self._base] < 0:
            self._next += 1
        return self._next if self._next < self._end else None

    def _again(self, position: int) -> None:
        """Give a position out again, unless that was done often enough."""
        self._attempts[position] = self._attempts.get(position, 0) + 1
        if self._attempts[position] < self._most_attempts:
            self._return(position)

    def _return(self, position: int) -> None:
        if position >= self._clock:
            heapq.heappush(self._returned, position)
