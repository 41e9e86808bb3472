"""`Store`: the bytes of objects by key, shared by all processes of a machine. It knows nothing of where they come from.

Reading: the index tells where the object lies, and the answer is a slice of the segment as this process has it mapped.
Writing: reserve space, fill it, publish it. The bytes and the record's header are complete before the entry that points
to them, so no reader ever finds half an object.

One `Store` per process and directory (see `registry`), used by all threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import lmdb

from aiscache.errors import CacheClosedError, CorruptError
from aiscache.locks import ByteLocks
from aiscache.stats import Counters
from aiscache.store.directory import Directory
from aiscache.store.index import ENTRY, OPEN, SEALED, SUSPECT, Entry, SegmentRow
from aiscache.store.reclaim import Drop, Reclaimer, Swept, drop_all, keep_all
from aiscache.store.record import Record, checksum_of
from aiscache.store.recovery import maintenance, note_boot, open_index, rebuild
from aiscache.store.segment import MappedSegments, Segment
from aiscache.store.space import Space
from aiscache.store.tiers import make_tiers
from aiscache.store.writer import Reservation
from aiscache.view import View, own_view

_LOG = logging.getLogger("aiscache")

InUse = Callable[[Sequence[Record]], Sequence[bool]]


class Store:
    """The store in a directory; `capacity_bytes` and `memory_bytes` as in `CacheSettings`.

    `in_use` tells which of some records somebody still wants: making room for new objects spares those.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        capacity_bytes: int | None = None,
        memory_bytes: int | None = None,
        verify_reads: bool = False,
        in_use: InUse = keep_all,
    ) -> None:
        self.directory = directory
        self.in_use = in_use
        self.verify_reads = verify_reads
        self.closed = False
        self._leases = ByteLocks(directory.leases)
        map_bytes = 256 << 20 if capacity_bytes is None else max(256 << 20, capacity_bytes // 8)
        with maintenance(self._leases):
            self._index, broken = open_index(directory, map_bytes=map_bytes)
            self.tiers = make_tiers(directory, self._index, capacity_bytes=capacity_bytes, memory_bytes=memory_bytes)
            if broken:
                rebuild(self._index, tiers=self.tiers, leases=self._leases, suspect=True)
            note_boot(directory)
        self.counters = Counters(directory.stats)
        self._mapped = MappedSegments(self._leases, self.tiers)
        self._space = Space(directory, self._index, tiers=self.tiers, leases=self._leases, make_room=self._make_room)
        self._reclaimer = Reclaimer(
            self._index,
            tiers=self.tiers,
            leases=self._leases,
            mapped=self._mapped,
            own_segments=lambda: self._space.own_segments,
        )
        self._reclaimer.adopt()

    def segment_path(self, tier: int, segment_id: int) -> Path:
        """Return where a segment's file is."""
        return self.tiers[tier].segment_path(segment_id)

    def get(self, key: bytes, digest: int) -> View | None:
        """Return the object's bytes if this version of it is here; 4 us."""
        return self.get_many((key,), (digest,))[0]

    def get_many(self, keys: Sequence[bytes], digests: Sequence[int]) -> list[View | None]:
        """Return for each key what `get` would, in one transaction."""
        views: list[View | None] = []
        counts, sizes = [0, 0], [0, 0]
        for key, value, digest in zip(keys, self._values(keys), digests, strict=True):
            segment, view = (None, None) if value is None else self._resolve(key, value, digest)
            views.append(view)
            if segment is not None and view is not None:
                counts[segment.tier] += 1
                sizes[segment.tier] += len(view)
        for tier in (0, 1):
            if counts[tier]:
                self.counters.hit(tier, counts[tier], sizes[tier])
        return views

    def contains(self, key: bytes, digest: int) -> bool:
        """Tell whether this version of the object is here, without counting a read."""
        entry = self._entry(key)
        return entry is not None and entry.digest == digest

    def reserve(self, *, key: bytes, digest: int, identity: bytes, length: int) -> Reservation | None:
        """Return space for an object, None if there is none: the caller then does without the store."""
        self._check_open()
        try:
            reservation = self._space.reserve(key=key, digest=digest, identity=identity, length=length)
        except (OSError, lmdb.Error) as error:
            _LOG.warning("cannot write to the cache in %s: %s", self.directory.path, error)
            self.counters.add("fallbacks")
            return None
        if reservation is None:
            self.counters.add("rejected")
        return reservation

    def publish(self, reservations: Sequence[Reservation]) -> list[View]:
        """Make filled reservations readable for all, in one transaction; return their bytes, read-only.

        1. The headers are written, which makes the records good.
        2. The entries are written, unless the segment was removed by force meanwhile (its row is gone then).
        """
        entries = [Entry(r.writer.segment_id, r.payload, r.length, r.commit(), r.digest) for r in reservations]
        try:
            dead = self._put_entries(reservations, entries)
        except lmdb.Error as error:
            _LOG.warning("cannot write to the index of %s: %s", self.directory.path, error)
            self.counters.add("fallbacks", len(reservations))
            dead = {}
        views = [self._published(reservation) for reservation in reservations]
        for reservation in reservations:
            self._space.settle(reservation)
        for segment_id, size in dead.items():
            self._space.add_dead(segment_id, size)
        return views

    def give_up(self, reservation: Reservation) -> None:
        """Take back a reservation that was not published."""
        self._space.give_up(reservation)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Forget objects; their bytes come free when their segments are swept."""
        with self._index.write() as transaction:
            for key in keys:
                self._index.delete_entry(transaction, key)

    def sweep(self, drop: Drop, *, force: bool = False) -> Swept:
        """Drop the records that `drop` picks from all segments, skipping what is in use unless `force`.

        This process's own segments are in use only if a view of them lives.
        """
        self._check_open()
        self._space.retire_all()
        self._mapped.unmap_all()
        self._reclaimer.adopt()
        total = Swept()
        for segment_id, row in self._reclaimer.rows().items():
            swept = self._reclaimer.sweep(segment_id, row, drop, force=force)
            total += swept or Swept(skipped=sum(drop(self._reclaimer.live(segment_id, row))))
        self._count_evicted(total)
        return total

    def clear(self) -> Swept:
        """Remove all objects, also what is in use: who has it mapped keeps it until it is unmapped."""
        return self.sweep(drop_all, force=True)

    def trim(self) -> int:
        """Unmap the segments that were not read since the last trim and that no view holds."""
        return self._mapped.trim()

    def records(self) -> Iterable[tuple[int, Record]]:
        """Yield tier and record of every object that can be read now."""
        for segment_id, row in self._reclaimer.rows().items():
            for record in self._reclaimer.live(segment_id, row):
                yield row.tier, record

    def verify(self, progress: Callable[[Record], None] = lambda record: None) -> list[Record]:
        """Check every object's bytes against its checksum; drop and return those that are damaged."""
        bad = []
        for segment_id, row in self._reclaimer.rows().items():
            damaged = [
                r for r in self._reclaimer.live(segment_id, row) if not self._intact(segment_id, row, r, progress)
            ]
            self.remove(record.key for record in damaged)
            for record in damaged:
                self._space.add_dead(segment_id, record.end - record.start)
            bad += damaged
            if row.state == SUSPECT:
                self._clear_suspicion(segment_id)
        if bad:
            self.counters.add("checksum_failures", len(bad))
        return bad

    def repair(self) -> int:
        """Rebuild the index from the segments; return the number of objects that it then has."""
        with maintenance(self._leases):
            return rebuild(self._index, tiers=self.tiers, leases=self._leases, suspect=True)

    def usage(self) -> dict[int, tuple[int, int]]:
        """Return bytes reserved and capacity by tier."""
        with self._index.read() as transaction:
            return {
                number: (self._index.reserved(transaction, number), tier.capacity_bytes or 0)
                for number, tier in self.tiers.items()
            }

    def count(self) -> int:
        """Return the number of objects."""
        with self._index.read() as transaction:
            return self._index.count(transaction)

    def close(self) -> None:
        """Seal what this process wrote and free all it holds; views that live stay valid."""
        if self.closed:
            return
        self.closed = True
        self._space.close()
        self._mapped.unmap_all()
        self._close_files()

    def before_fork(self) -> None:
        """Wait until no transaction is open: LMDB cannot be closed in a child in the middle of one."""
        self._index.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._index.after_fork()

    def after_fork_in_child(self) -> None:
        """Let go of what belongs to the parent, without a change to it; this object is then of no more use."""
        self.closed = True
        self._close_files()

    def _close_files(self) -> None:
        self.counters.close()
        self._index.close()
        self._leases.close()

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return self._index.values(keys)
        except lmdb.Error:
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self.closed:
            raise CacheClosedError(f"the cache in {self.directory.path} was closed")

    def _entry(self, key: bytes) -> Entry | None:
        with self._index.read() as transaction:
            return self._index.entry(transaction, key)

    def _resolve(self, key: bytes, value: bytes, digest: int) -> tuple[Segment | None, View | None]:
        segment_id, payload, length, checksum, found = ENTRY.unpack(value)
        if found != digest:
            return None, None
        segment = self._mapped.get(segment_id) or self._map(segment_id, key)
        if segment is None:
            return None, None
        try:
            view = segment.view(payload, length)
        except (CorruptError, OSError) as error:
            self._drop_damaged(key, str(error))
            return None, None
        if (self.verify_reads or segment.suspect) and checksum_of(view.data) != checksum:
            self._drop_damaged(key, f"object at {payload} of segment {segment_id:x} does not match its checksum")
            return None, None
        segment.hits += 1
        return segment, view

    def _map(self, segment_id: int, key: bytes) -> Segment | None:
        """Map a segment that an entry pointed to.

        1. The lookup gave the entry. 2. Here we lease and map the segment. 3. Between the two, somebody may have swept
        it. So look again: an entry that still points there was there when we had the lease already.
        """
        with self._index.read() as transaction:
            row = self._index.segment(transaction, segment_id)
        segment = None
        if row is not None:
            segment = self._mapped.map(segment_id, row.tier, suspect=row.state == SUSPECT)
        entry = self._entry(key)
        if entry is None or entry.segment != segment_id:
            return None
        if row is None or (segment is None and not self.segment_path(row.tier, segment_id).exists()):
            self.remove([key])  # the file was deleted by hand, or by a power loss
        return segment

    def _drop_damaged(self, key: bytes, reason: str) -> None:
        _LOG.warning("dropped a damaged object from %s: %s", self.directory.path, reason)
        self.counters.add("checksum_failures")
        self.remove([key])

    def _put_entries(self, reservations: Sequence[Reservation], entries: Sequence[Entry]) -> dict[int, int]:
        """Write entries; return the bytes that are dead now, by segment."""
        dead: dict[int, int] = {}
        with self._index.write() as transaction:
            rows = {entry.segment: self._index.segment(transaction, entry.segment) for entry in entries}
            for reservation, entry in zip(reservations, entries, strict=True):
                if rows[entry.segment] is None:
                    continue
                before = self._index.entry(transaction, reservation.key)
                if before is not None and before.digest == entry.digest:
                    gone: Entry | None = entry  # somebody else fetched this version meanwhile: theirs stays
                else:
                    gone = self._index.put_entry(transaction, reservation.key, entry)
                if gone is not None:
                    dead[gone.segment] = dead.get(gone.segment, 0) + gone.length
        return dead

    def _published(self, reservation: Reservation) -> View:
        segment_id, tier = reservation.writer.segment_id, reservation.writer.tier
        segment = self._mapped.get(segment_id) or self._mapped.map(segment_id, tier, suspect=False)
        if segment is None:  # removed by force meanwhile
            return own_view(bytes(reservation.buffer))
        return segment.view(reservation.payload, reservation.length)

    def _make_room(self, tier: int, needed: int) -> bool:
        """Free `needed` bytes in a tier: first what is dead, then what nobody uses, longest unused first."""
        self._reclaimer.adopt()
        rows = {number: row for number, row in self._reclaimer.rows().items() if row.tier == tier and row.state != OPEN}
        order = sorted(rows, key=lambda number: _used_at(self.segment_path(tier, number)))
        for drop in (keep_all, self._unused):
            for segment_id in order:
                row = rows[segment_id]
                if drop is keep_all and not row.dead:
                    continue
                swept = self._reclaimer.sweep(segment_id, row, drop) or Swept()
                self._count_evicted(swept)
                if swept.freed_bytes and self._space.free_bytes(tier) >= needed:
                    return True
        return self._space.free_bytes(tier) >= needed

    def _count_evicted(self, swept: Swept) -> None:
        self.counters.add("evicted_objects", swept.objects)
        self.counters.add("evicted_bytes", swept.freed_bytes)

    def _unused(self, records: Sequence[Record]) -> Sequence[bool]:
        return [not used for used in self.in_use(records)]

    def _intact(self, segment_id: int, row: SegmentRow, record: Record, progress: Callable[[Record], None]) -> bool:
        progress(record)
        segment = self._mapped.get(segment_id) or self._mapped.map(segment_id, row.tier, suspect=row.state == SUSPECT)
        if segment is None:
            return True  # removed since
        return checksum_of(segment.view(record.payload, record.length).data) == record.checksum

    def _clear_suspicion(self, segment_id: int) -> None:
        with self._index.write() as transaction:
            row = self._index.segment(transaction, segment_id)
            if row is not None and row.state == SUSPECT:
                self._index.put_segment(transaction, segment_id, SegmentRow(row.tier, SEALED, row.reserved, row.dead))


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
