"""A worker of the pool: fetches what it is given into the store, many objects at a time, in one thread.

For each position: is the object there already? Does somebody else fetch it? Has its reader come by? Only then space is
reserved, in the cache or else in a staging segment of this worker, and the request goes out. So a worker fetches
nothing that it cannot keep, and waits for nobody: what others are fetching is left to them. A staging segment is
dropped when the loop is done with all that is in it.

    1. A worker looks at the clock: the position lies ahead. 2. The clock passes it; its reader takes the flight,
    fetches, and finds the cache full: nothing is kept. 3. The worker gets the flight, and looks in the store: nothing.

So the clock is asked once more under the flight; else the object would be fetched a second time, for nobody.
"""

from __future__ import annotations

import logging
import select
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count

from aiscache.fill import PUBLISH_TOGETHER, Wanted
from aiscache.keys import ObjectRef, pack_identity
from aiscache.locks import ByteLocks
from aiscache.origin import Fetched
from aiscache.prefetch.job import Job
from aiscache.prefetch.landing import Label, Landed, Landing
from aiscache.prefetch.messages import LONGEST, pack_report, unpack_chunk
from aiscache.prefetch.page import CLOCK, DROP, Page
from aiscache.prefetch.plan import Outcome
from aiscache.store import STAGING, Reservation, Store

_LOG = logging.getLogger("aiscache")

_TIDY_S = 0.02  # how often a worker without work looks whether what it staged was read
_LISTEN = 8  # objects that are started between two looks for more work, unless little is left
_REPORT = 8  # settled positions are told so many at a time, and at once when nothing else is to be done


class Worker:
    """Serves one link until the pool closes it: `run` returns then."""

    def __init__(self, link: socket.socket, *, job: Job, page: Page, store: Store) -> None:
        self._link = link
        self._job = job
        self._page = page
        self._store = store
        self._flights = ByteLocks(store.directory.flights)
        self._staging = store.open_staging(job.share_bytes)
        self._full = False  # with `keep_only`: something did not fit, so nothing is fetched without knowing its size
        self._last: dict[int, int] = {}  # by staging segment: the last position that is in it
        self._fetching: dict[bytes, int] = {}  # by key: the last position that wants it
        self._epoch = 0
        self._queue: deque[tuple[int, Wanted]] = deque()
        self._settled: list[tuple[int, Outcome, int]] = []
        self._open = True

    def run(self) -> None:
        """Work until the link ends."""
        try:
            while self._open:
                if self._queue:
                    self._fetch()
                self._report(at_least=1)
                self._tidy()
                self._receive(timeout_s=0 if self._queue else _TIDY_S if self._staging.segments else None)
        finally:
            self._flights.close()

    # ---- talking to the pool

    def _receive(self, *, timeout_s: float | None) -> None:
        """Take in all that the pool sent; wait for the first packet, at most so long."""
        while self._open and select.select([self._link], [], [], timeout_s)[0]:
            packet = self._link.recv(LONGEST)
            if not packet:
                self._open = False
                self._queue.clear()
                return
            self._take(packet)
            timeout_s = 0

    def _take(self, packet: bytes) -> None:
        """Queue a chunk, but for what is in the store already: one look for all of it."""
        epoch, work = unpack_chunk(packet)
        if epoch != self._epoch:
            self._queue.clear()
            self._settled.clear()
            self._last.clear()
            self._epoch = epoch
            self._tidy()
        wanted = [self._job.wanted(row) for _, row in work]
        segments = self._store.segments_of([one.key for one in wanted], [one.digest for one in wanted])
        for (position, _), one, segment in zip(work, wanted, segments, strict=True):
            if segment is None:
                self._queue.append((position, one))
                continue
            if segment in self._last:  # staged for another position of this epoch: it stays for this one too
                self._last[segment] = max(self._last[segment], position)
            self._settle(position, Outcome.PRESENT)
        self._report(at_least=1)

    def _settle(self, position: int, outcome: Outcome, size: int = 0) -> None:
        self._settled.append((position, outcome, size))

    def _report(self, *, at_least: int) -> None:
        if len(self._settled) >= at_least:
            self._link.send(pack_report(self._epoch, self._settled))
            self._settled.clear()

    # ---- fetching

    def _fetch(self) -> None:
        """Fetch what is queued, and what comes in meanwhile, as long as it is from one cluster."""
        cluster = self._queue[0][1].ref.cluster
        with closing(Landing(self._store, self._flights, self._reserve)) as landing:
            refs = self._startable(cluster, landing)
            arrived: list[Fetched] = []
            for fetched in self._job.origins[cluster].fetch(refs, landing, in_flight=self._job.connections):
                arrived.append(fetched)
                if not fetched.ready or len(arrived) >= PUBLISH_TOGETHER:
                    for one, landed in zip(arrived, landing.settle(arrived), strict=True):
                        self._land(one, landed)
                    self._count(arrived)
                    arrived.clear()
                    self._report(at_least=_REPORT)

    def _land(self, fetched: Fetched, landed: Landed) -> None:
        outcome = landed.outcome
        last = self._fetching.pop(landed.key)
        if landed.segment is not None:
            self._last[landed.segment] = max(self._last.get(landed.segment, 0), last)
        if self._job.keep_only and outcome is Outcome.LEFT and fetched.size:
            outcome = Outcome.NO_ROOM
            self._full = True
        if outcome is Outcome.STAGED:
            self._store.counters.add("staged")
        if landed.label.epoch == self._epoch:
            self._settle(landed.label.position, outcome, fetched.size)

    def _count(self, arrived: Sequence[Fetched]) -> None:
        add = self._store.counters.add
        for fetched in arrived:
            if fetched.error is None:
                self._store.counters.took(fetched.took_s)
            else:
                add("prefetch_failures")
                _LOG.debug("not prefetched: %s", str(fetched.error))
        sizes = [fetched.size for fetched in arrived if fetched.error is None]
        for name in ("fetched", "prefetched"):
            add(f"{name}_objects", len(sizes))
            add(f"{name}_bytes", sum(sizes))

    def _startable(self, cluster: str, landing: Landing) -> Iterator[ObjectRef | None]:
        """Yield what is to be fetched next, its flight taken and its space reserved; None if there is nothing yet."""
        for turn in count():
            if turn % _LISTEN == 0 or len(self._queue) < _LISTEN:
                self._receive(timeout_s=0)
            if not self._queue:
                self._report(at_least=1)
                yield None
                continue
            if self._queue[0][1].ref.cluster != cluster:
                self._report(at_least=1)
                return
            position, wanted = self._queue.popleft()
            outcome = self._start(position, wanted, landing)
            if outcome is None:
                yield wanted.ref
            else:
                self._settle(position, outcome)
                self._report(at_least=_REPORT)

    def _start(self, position: int, wanted: Wanted, landing: Landing) -> Outcome | None:
        """Take the flight and the space for an object, None if all is ready; or say why it is not to be fetched.

        A flight keeps others away, but not this worker itself, where the order has an object more than once.
        """
        if wanted.key in self._fetching:
            self._fetching[wanted.key] = max(self._fetching[wanted.key], position)
            return Outcome.LEFT
        if self._passed(position) or not self._flights.try_exclusive(wanted.flight):
            return Outcome.LEFT
        if self._store.contains(wanted.key, wanted.digest):
            outcome = Outcome.PRESENT
        elif self._passed(position):
            outcome = Outcome.LEFT
        elif self._full and (wanted.ref.size < 0 or wanted.ref.etl):
            outcome = Outcome.NO_ROOM
        elif landing.expect(Label(self._epoch, position), wanted):
            self._fetching[wanted.key] = position
            return None
        else:
            outcome = Outcome.NO_ROOM
        self._flights.unlock(wanted.flight)
        return outcome

    def _passed(self, position: int) -> bool:
        return position < self._page.position(CLOCK, self._epoch)

    # ---- space

    def _reserve(self, label: Label, wanted: Wanted, size: int) -> Reservation | None:
        """Return space for an object, None if there is none, also not after dropping what was read."""
        identity = pack_identity(wanted.ref)
        staging = None if self._job.keep_only else self._staging
        for attempt in range(2):
            reservation = self._store.reserve(
                key=wanted.key, digest=wanted.digest, identity=identity, length=size, staging=staging
            )
            if reservation is not None:
                if reservation.writer.tier == STAGING:
                    segment = reservation.writer.segment_id
                    self._last[segment] = max(self._last.get(segment, 0), label.position)
                return reservation
            if attempt == 0 and not self._tidy():
                break
        return None

    def _tidy(self) -> bool:
        """Drop the staging segments that the loop is done with, and those of earlier epochs; tell if any went."""
        done = self._page.position(DROP, self._epoch)
        over = [segment for segment in self._staging.segments if self._last.get(segment, -1) < done]
        dropped = [self._staging.drop(segment) for segment in over]
        return any(dropped)
