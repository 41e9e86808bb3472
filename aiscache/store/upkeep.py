"""Upkeep: what users ask to be done to all of a cache, and what there is in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from aiscache.errors import CorruptError
from aiscache.locks import ByteLocks
from aiscache.stats import Counters
from aiscache.store.eviction import count_evicted
from aiscache.store.failures import Failures
from aiscache.store.index import ENTRY, SEALED, STAGING, SUSPECT, Entry, Index, SegmentRow
from aiscache.store.reclaim import Drop, Reclaimer, Swept, drop_all
from aiscache.store.record import Record, checksum_of
from aiscache.store.recovery import maintenance, rebuild
from aiscache.store.segment import MappedSegments
from aiscache.store.space import Space
from aiscache.store.tiers import Tier
from aiscache.uninterrupted import Uninterrupted


class Upkeep:
    """Sweeps, verifies, repairs and counts. A failure of the machine is a CacheError, CacheClosedError if it closed."""

    def __init__(
        self,
        index: Index,
        *,
        tiers: dict[int, Tier],
        leases: ByteLocks,
        mapped: MappedSegments,
        space: Space,
        reclaimer: Reclaimer,
        counters: Counters,
        failures: Failures,
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._leases = leases
        self._mapped = mapped
        self._space = space
        self._reclaimer = reclaimer
        self._counters = counters
        self._failures = failures

    def sweep(self, drop: Drop, *, force: bool = False, unused_for_s: float = 0.0, dry_run: bool = False) -> Swept:
        """Drop the records that `drop` picks from all segments, skipping what is in use unless `force`.

        This process's own segments are in use only if a view of them lives. With `unused_for_s` segments that were
        read or written since are left alone. `dry_run` changes nothing, and returns about what would come of it.
        """
        until = time.time() - unused_for_s
        total = Swept()
        with self._failures.as_errors("sweep"):
            with Uninterrupted():
                self._space.retire_all()
                self._mapped.unmap_all()
                self._reclaimer.adopt()
            for segment_id, row in self._reclaimer.rows().items():
                if unused_for_s and self._tiers[row.tier].used_at(segment_id) > until:
                    continue
                if dry_run:
                    total += self._reclaimer.would_sweep(segment_id, row, drop, force=force)
                    continue
                with Uninterrupted():
                    swept = self._reclaimer.sweep(segment_id, row, drop, force=force)
                total += Swept(skipped=sum(drop(self._reclaimer.live(segment_id, row)))) if swept is None else swept
        if not dry_run:
            count_evicted(self._counters, total)
        return total

    def clear(self) -> Swept:
        """Remove all objects, also what is in use: who has it mapped keeps it until it is unmapped."""
        return self.sweep(drop_all, force=True)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Forget objects; their bytes come free when their segments are swept."""
        with self._failures.as_errors("write to"), self._index.write() as transaction:
            for key in keys:
                self._index.delete_entry(transaction, key)

    def records(self) -> Iterable[tuple[int, Record]]:
        """Yield tier and record of every object that can be read now."""
        for segment_id, row in self._reclaimer.rows().items():
            for record in self._reclaimer.live(segment_id, row):
                yield row.tier, record

    def count(self) -> int:
        """Return the number of objects."""
        with self._failures.as_errors("read the index of"), self._index.read() as transaction:
            return self._index.count(transaction)

    def usage(self) -> dict[int, tuple[int, int]]:
        """Return bytes reserved and capacity by tier."""
        with self._failures.as_errors("read the index of"), self._index.read() as transaction:
            return {
                number: (self._index.reserved(transaction, number), tier.capacity_bytes or 0)
                for number, tier in self._tiers.items()
                if number != STAGING
            }

    def verify(self, progress: Callable[[Record], None] = lambda record: None) -> list[Record]:
        """Check every object's bytes against its checksum; drop and return those that are damaged."""
        with self._failures.as_errors("verify"):
            bad = [
                record
                for segment_id, row in self._reclaimer.rows().items()
                for record in self._verify(segment_id, row, progress)
            ]
        if bad:
            self._counters.add("checksum_failures", len(bad))
        return bad

    def repair(self, progress: Callable[[int], None] = lambda objects: None) -> int:
        """Rebuild the index from the segments; return the number of objects that it then has.

        `progress` is called with the number of objects found in each segment.
        """
        with self._failures.as_errors("repair"), maintenance(self._leases):
            return rebuild(self._index, tiers=self._tiers, leases_path=self._leases.path, progress=progress)

    def _verify(self, segment_id: int, row: SegmentRow, progress: Callable[[Record], None]) -> list[Record]:
        """Check the objects of one segment; drop and return those that are damaged."""
        seen = {r: self._intact(segment_id, row, r, progress) for r in self._reclaimer.live(segment_id, row)}
        damaged = [record for record, intact in seen.items() if intact is False]
        for record in damaged:
            self._forget(segment_id, record)
            self._space.add_dead(segment_id, record.end - record.start)
        if row.state == SUSPECT and None not in seen.values():
            self._clear_suspicion(segment_id)
        return damaged

    def _intact(
        self, segment_id: int, row: SegmentRow, record: Record, progress: Callable[[Record], None]
    ) -> bool | None:
        """Tell whether a record's bytes are what was written; None if it was removed meanwhile."""
        progress(record)
        try:
            suspect = row.state == SUSPECT
            view = self._mapped.view(
                segment_id, row.tier, offset=record.payload, length=record.length, suspect=suspect, is_use=False
            )
        except (CorruptError, OSError):
            return False
        if view is None:
            return None
        if checksum_of(view.data) == record.checksum:
            return True
        value = self._index.value(record.key)
        entry = None if value is None else Entry._make(ENTRY.unpack(value))
        moved = entry is None or (entry.segment, entry.payload) != (segment_id, record.payload)
        return None if moved else False  # swept before it was leased here

    def _forget(self, segment_id: int, record: Record) -> None:
        """Forget a record's object, unless its entry meanwhile is another one than the one that was looked at."""
        with self._index.write() as transaction:
            entry = self._index.entry(transaction, record.key)
            if entry is not None and (entry.segment, entry.payload) == (segment_id, record.payload):
                self._index.delete_entry(transaction, record.key)

    def _clear_suspicion(self, segment_id: int) -> None:
        with self._index.write() as transaction:
            row = self._index.segment(transaction, segment_id)
            if row is not None and row.state == SUSPECT:
                self._index.put_segment(transaction, segment_id, SegmentRow(row.tier, SEALED, row.reserved, row.dead))
