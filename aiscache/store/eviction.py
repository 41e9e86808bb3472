"""Eviction: room for new objects, made of what is dead and of what nobody uses.

What a process has mapped is in use, and so is what `in_use` names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from aiscache.locks import ByteLocks
from aiscache.stats import Counters
from aiscache.store.failures import Failures
from aiscache.store.index import OPEN, STAGING
from aiscache.store.reclaim import Reclaimer, Swept, keep_all
from aiscache.store.record import Record
from aiscache.store.segment import MappedSegments
from aiscache.store.space import Space
from aiscache.store.tiers import Tier

InUse = Callable[[Sequence[Record]], Sequence[bool]]


class Eviction:
    """Makes room in the tiers. `in_use` tells which of some records somebody still wants: those are spared."""

    def __init__(
        self,
        in_use: InUse,
        *,
        tiers: dict[int, Tier],
        leases: ByteLocks,
        mapped: MappedSegments,
        space: Space,
        reclaimer: Reclaimer,
        counters: Counters,
        failures: Failures,
    ) -> None:
        self._in_use = in_use
        self._tiers = tiers
        self._leases = leases
        self._mapped = mapped
        self._space = space
        self._reclaimer = reclaimer
        self._counters = counters
        self._failures = failures

    def make_room(self, tier: int, needed: int) -> bool:
        """Free `needed` bytes in a tier; what this process has mapped without a use for it only if it must be."""
        self._reclaimer.adopt()
        for unmap in (self._mapped.trim, self._mapped.unmap_all):
            unmap()
            if self._evict(tier, needed):
                return True
        return False

    @contextlib.contextmanager
    def room_for(self, size_bytes: int) -> Iterator[bool]:
        """Tell whether a file of that size, such as a listing, fits beside the segments; room is made if need be.

        Nobody is given space until the block ends, so that the capacity holds while the file is written.
        """
        with self._failures.as_errors("make room in"):
            with self._space.beside_segments(size_bytes) as fits:
                if fits:
                    yield True
                    return
            self.make_room(self._space.home.number, size_bytes)
            with self._space.beside_segments(size_bytes) as fits:
                yield fits

    def free_bytes(self) -> int:
        """Return how many bytes can be had in all tiers without evicting anything."""
        tiers = (number for number, tier in self._tiers.items() if tier.capacity_bytes is not None)
        return sum(max(0, self._space.free_bytes(number)) for number in tiers)

    def evictable_bytes(self, enough: int) -> int:
        """Return how many bytes making room could bring, or some number from `enough` on; reads record headers.

        Counted is what `_evict` would take: what is dead, and what nobody has mapped and no open dataset names.
        """
        total = 0
        for segment_id, row in self._reclaimer.rows().items():
            if total >= enough:
                break
            takes_new = row.tier != STAGING and self._tiers[row.tier].capacity_bytes is not None
            if takes_new and row.state != OPEN and self._leases.is_free(segment_id):
                live = self._reclaimer.live(segment_id, row)
                unused = zip(live, self._unused(live), strict=True)
                total += row.dead + sum(record.end - record.start for record, out in unused if out)
        return total

    def _evict(self, tier: int, needed: int) -> bool:
        """Give back what is dead, then what nobody uses, longest unused first, until `needed` bytes are free."""
        rows = {number: row for number, row in self._reclaimer.rows().items() if row.tier == tier and row.state != OPEN}
        order = sorted(rows, key=self._tiers[tier].used_at)
        for drop in (keep_all, self._unused):
            for segment_id in order:
                row = rows[segment_id]
                if drop is keep_all and not row.dead:
                    continue
                swept = self._reclaimer.sweep(segment_id, row, drop) or Swept()
                count_evicted(self._counters, swept)
                if swept.freed_bytes and self._space.free_bytes(tier) >= needed:
                    return True
        return self._space.free_bytes(tier) >= needed

    def _unused(self, records: Sequence[Record]) -> Sequence[bool]:
        return [not used for used in self._in_use(records)]


def count_evicted(counters: Counters, swept: Swept) -> None:
    """Count what a sweep took away."""
    counters.add("evicted_objects", swept.objects)
    counters.add("evicted_bytes", swept.freed_bytes)
