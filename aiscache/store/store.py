"""`Store`: the bytes of objects by key, shared by all processes of a machine. It knows nothing of where they come from.

Reading: the index tells where the object lies, and the answer is a slice of the segment as this process has it mapped.
Writing: reserve space, fill it, publish it. The bytes and the record's header are complete before the entry that points
to them, so no reader ever finds half an object.

One `Store` per process and directory (see `registry`), used by all threads.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import lmdb

from aiscache.errors import CacheClosedError, CacheDirectoryError, CacheError, CorruptError
from aiscache.locks import ByteLocks
from aiscache.stats import Counters
from aiscache.store.directory import Directory
from aiscache.store.index import DISK, DOOMED, ENTRY, MEMORY, OPEN, SEALED, STAGING, SUSPECT, Entry, SegmentRow
from aiscache.store.names import USERS_BYTE
from aiscache.store.reclaim import Drop, Reclaimer, Swept, drop_all, keep_all
from aiscache.store.record import Record, checksum_of
from aiscache.store.recovery import is_lost, maintenance, note_boot, open_index, rebuild
from aiscache.store.segment import MappedSegments, Segment
from aiscache.store.space import Space
from aiscache.store.staging import Staging
from aiscache.store.tiers import make_tiers
from aiscache.store.writer import Reservation
from aiscache.uninterrupted import Uninterrupted
from aiscache.view import View, own_view

_LOG = logging.getLogger("aiscache")

_unpack_entry = ENTRY.unpack

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
        self.closed = False
        self._complaints: set[str] = set()
        with ExitStack() as undo:
            try:
                self._open_files(undo, capacity_bytes=capacity_bytes, memory_bytes=memory_bytes)
            except (OSError, lmdb.Error) as error:
                raise CacheDirectoryError(
                    f"the cache in {directory.path} cannot be opened: {error}; put that right, or give another one"
                ) from error
            undo.pop_all()
        self._mapped = MappedSegments(self._leases, self.tiers, home=str(directory.path), verify_reads=verify_reads)
        self._space = Space(directory, self._index, tiers=self.tiers, leases=self._leases, make_room=self._make_room)
        self._reclaimer = Reclaimer(
            self._index,
            tiers=self.tiers,
            leases=self._leases,
            mapped=self._mapped,
            own_segments=self._own_segments,
        )
        self._staging: Staging | None = None
        try:
            self._reclaimer.adopt()
        except (OSError, lmdb.Error) as error:  # whoever makes room does it
            self.complain("tidy up", error)

    def _open_files(self, undo: ExitStack, *, capacity_bytes: int | None, memory_bytes: int | None) -> None:
        directory = self.directory
        self._leases = ByteLocks(directory.leases)
        undo.callback(self._leases.close)
        map_bytes = 256 << 20 if capacity_bytes is None else max(256 << 20, capacity_bytes // 8)
        with maintenance(self._leases):
            self._index, broken = open_index(directory, self._leases, map_bytes=map_bytes)
            undo.callback(self._index.close)
            self.tiers = make_tiers(directory, self._index, capacity_bytes=capacity_bytes, memory_bytes=memory_bytes)
            if broken or is_lost(self._index, self.tiers):
                rebuild(self._index, tiers=self.tiers, leases_path=directory.leases)
            note_boot(directory)
        self.counters = Counters(directory.stats)

    def segment_path(self, tier: int, segment_id: int) -> Path:
        """Return where a segment's file is."""
        return self.tiers[tier].segment_path(segment_id)

    def get(self, key: bytes, digest: int) -> View | None:
        """Return the object's bytes if this version of it is here; 3 us. A local failure is counted, and a miss."""
        if self._mapped.staged:
            self._mapped.trim_staged()
        maps = self._mapped.maps
        try:
            value = self._index.value(key)
        except lmdb.Error as error:
            self.complain("read the index of", error)
            return None
        if value is None:
            return None
        segment_id, payload, length, _, found = _unpack_entry(value)
        segment = self._mapped.get(segment_id)
        view: View | None
        if (
            found == digest
            and segment is not None
            and segment.order < maps
            and (view := segment.view_at_hand(payload, length)) is not None
        ):
            self.counters.hit(segment.tier, 1, length)  # what nearly every read of a warm cache comes to
            return view
        resolved = self._resolve(key, value, digest, maps=maps)
        if resolved is None:
            return None
        tier, view = resolved
        self.counters.hit(tier, 1, length)
        return view

    def get_many(self, keys: Sequence[bytes], digests: Sequence[int]) -> tuple[list[View | None], int]:
        """Return for each key what `get` would, and how many of that are None; one transaction, 1.3 us each."""
        if self._mapped.staged:
            self._mapped.trim_staged()
        maps = self._mapped.maps
        try:
            values = self._index.values(keys)
        except lmdb.Error as error:
            self.complain("read the index of", error)
            return [None] * len(keys), len(keys)
        views: list[View | None] = []
        counts, sizes = [0, 0], [0, 0]
        mapped = self._mapped.get
        for key, value, digest in zip(keys, values, digests, strict=True):
            view = None
            if value is not None:
                segment_id, payload, length, _, found = _unpack_entry(value)
                segment = mapped(segment_id) if found == digest else None
                if segment is not None and segment.order < maps:
                    tier, view = segment.tier, segment.view_at_hand(payload, length)
                if view is None and (resolved := self._resolve(key, value, digest, maps=maps)) is not None:
                    tier, view = resolved
                if view is not None:
                    counts[tier] += 1
                    sizes[tier] += length
            views.append(view)
        for tier in (MEMORY, DISK):
            if counts[tier]:
                self.counters.hit(tier, counts[tier], sizes[tier])
        return views, len(keys) - sum(counts)

    def attach(self, segment_id: int, tier: int) -> Segment | None:
        """Map and lease a segment that another process of this cache read from; None if it is gone."""
        if self.closed or tier not in self.tiers:
            return None
        return self._mapped.get(segment_id) or self._mapped.map(segment_id, tier, suspect=False)

    def contains(self, key: bytes, digest: int) -> bool:
        """Tell whether this version of the object is here, without counting a read."""
        try:
            value = self._index.value(key)
        except lmdb.Error as error:
            self.complain("read the index of", error)
            return False
        return value is not None and ENTRY.unpack(value)[4] == digest

    def segments_of(self, keys: Sequence[bytes], digests: Sequence[int]) -> list[int | None]:
        """Return for each object the segment that has this version of it, without counting a read; 1 us each."""
        try:
            values = self._index.values(keys)
        except lmdb.Error as error:
            self.complain("read the index of", error)
            return [None] * len(keys)
        entries = [value and _unpack_entry(value) for value in values]
        return [
            entry[0] if entry and entry[4] == digest else None for entry, digest in zip(entries, digests, strict=True)
        ]

    def reserve(
        self, *, key: bytes, digest: int, identity: bytes, length: int, staging: Staging | None = None
    ) -> Reservation | None:
        """Return space for an object, None if there is none: the caller then does without the store.

        With `staging` that has the space where the cache itself has none.
        """
        self._check_open()
        with Uninterrupted():
            return self._reserve(key=key, digest=digest, identity=identity, length=length, staging=staging)

    def _reserve(
        self, *, key: bytes, digest: int, identity: bytes, length: int, staging: Staging | None
    ) -> Reservation | None:
        try:
            reservation = self._space.reserve(key=key, digest=digest, identity=identity, length=length)
            if reservation is None and staging is not None:
                return staging.reserve(key=key, digest=digest, identity=identity, length=length)
        except (OSError, lmdb.Error) as error:
            self.complain("make room in", error)
            return None
        if reservation is None:
            self.counters.add("rejected")
        return reservation

    @contextlib.contextmanager
    def room_for(self, size_bytes: int) -> Iterator[bool]:
        """Tell whether a file of that size, such as a listing, fits beside the segments; room is made if need be.

        Nobody is given space until the block ends, so that the capacity holds while the file is written.
        """
        with self._failures("make room in"):
            with self._space.beside_segments(size_bytes) as fits:
                if fits:
                    yield True
                    return
            self._make_room(next(n for n, t in self.tiers.items() if t.path == self.directory.segments), size_bytes)
            with self._space.beside_segments(size_bytes) as fits:
                yield fits

    def open_staging(self, budget_bytes: int) -> Staging:
        """Return this process's staging segments, which close with the store."""
        self._check_open()
        self._staging = Staging(
            self._index, tier=self.tiers[STAGING], leases=self._leases, mapped=self._mapped, budget_bytes=budget_bytes
        )
        return self._staging

    def publish(self, reservations: Sequence[Reservation]) -> list[View]:
        """Make filled reservations readable for all, in one transaction; return their bytes, read-only."""
        with Uninterrupted():
            self._enter(reservations)
            views = [self._published(reservation) for reservation in reservations]
            self._settle(reservations)
        return views

    def keep(self, reservations: Sequence[Reservation]) -> None:
        """Make filled reservations readable for all, as `publish` does, without mapping what they lie in."""
        with Uninterrupted():
            self._enter(reservations)
            self._settle(reservations)

    def _enter(self, reservations: Sequence[Reservation]) -> None:
        """Write the headers and the entries of reservations.

        1. The headers are written, which makes the records good.
        2. The entries are written, unless the segment was removed by force meanwhile (its row is gone then).

        What could not be written gets no entry: its space is dead.
        """
        good = [reservation for reservation in reservations if self._commit(reservation)]
        entries = [Entry(r.writer.segment_id, r.payload, r.length, r.checksum, r.digest) for r in good]
        try:
            for segment_id in self._put_entries(good, entries):
                self._space.forget(segment_id)
            for reservation in reservations:
                if reservation.failure is not None:
                    self._space.add_dead(reservation.writer.segment_id, reservation.end - reservation.start)
        except lmdb.Error as error:  # a full disk, a full index; or closed meanwhile, which is no reason to lose bytes
            self.complain("write to the index of", error)

    def _commit(self, reservation: Reservation) -> bool:
        try:
            if reservation.failure is None:
                reservation.commit()
        except OSError as error:
            reservation.spill(error)
        if reservation.failure is None:
            return True
        self.complain("write to", reservation.failure)
        return False

    def _settle(self, reservations: Sequence[Reservation]) -> None:
        try:
            for reservation in reservations:
                self._space.settle(reservation)
        except (OSError, lmdb.Error) as error:  # the segment stays open, and is sealed by who opens the cache next
            self.complain("seal a segment of", error)

    def give_up(self, reservation: Reservation) -> None:
        """Take back a reservation that was not published."""
        try:
            with Uninterrupted():
                self._space.give_up(reservation)
        except (OSError, lmdb.Error) as error:
            self.complain("take back a reservation in", error)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Forget objects; their bytes come free when their segments are swept."""
        with self._failures("write to"), self._index.write() as transaction:
            for key in keys:
                self._index.delete_entry(transaction, key)

    def sweep(self, drop: Drop, *, force: bool = False, unused_for_s: float = 0.0, dry_run: bool = False) -> Swept:
        """Drop the records that `drop` picks from all segments, skipping what is in use unless `force`.

        This process's own segments are in use only if a view of them lives. With `unused_for_s` segments that were
        read or written since are left alone. `dry_run` changes nothing, and returns about what would come of it.
        """
        until = time.time() - unused_for_s
        total = Swept()
        with self._failures("sweep"):
            with Uninterrupted():
                self._space.retire_all()
                self._mapped.unmap_all()
                self._reclaimer.adopt()
            for segment_id, row in self._reclaimer.rows().items():
                if unused_for_s and _used_at(self.segment_path(row.tier, segment_id)) > until:
                    continue
                if dry_run:
                    total += self._reclaimer.would_sweep(segment_id, row, drop, force=force)
                    continue
                with Uninterrupted():
                    swept = self._reclaimer.sweep(segment_id, row, drop, force=force)
                total += Swept(skipped=sum(drop(self._reclaimer.live(segment_id, row)))) if swept is None else swept
        if not dry_run:
            self._count_evicted(total)
        return total

    def clear(self) -> Swept:
        """Remove all objects, also what is in use: who has it mapped keeps it until it is unmapped."""
        return self.sweep(drop_all, force=True)

    def trim(self) -> int:
        """Unmap the segments that were not read since the last trim and that no view holds."""
        with Uninterrupted():
            return self._mapped.trim()

    def trim_staged(self) -> None:
        """Unmap staging segments that were not read for a moment and that no view holds; 0.1 us if there are none."""
        if self._mapped.staged:
            self._mapped.trim_staged()

    def records(self) -> Iterable[tuple[int, Record]]:
        """Yield tier and record of every object that can be read now."""
        for segment_id, row in self._reclaimer.rows().items():
            for record in self._reclaimer.live(segment_id, row):
                yield row.tier, record

    def verify(self, progress: Callable[[Record], None] = lambda record: None) -> list[Record]:
        """Check every object's bytes against its checksum; drop and return those that are damaged."""
        with self._failures("verify"):
            bad = [
                record
                for segment_id, row in self._reclaimer.rows().items()
                for record in self._verify(segment_id, row, progress)
            ]
        if bad:
            self.counters.add("checksum_failures", len(bad))
        return bad

    def repair(self, progress: Callable[[int], None] = lambda objects: None) -> int:
        """Rebuild the index from the segments; return the number of objects that it then has.

        `progress` is called with the number of objects found in each segment.
        """
        with self._failures("repair"), maintenance(self._leases):
            return rebuild(self._index, tiers=self.tiers, leases_path=self.directory.leases, progress=progress)

    def usage(self) -> dict[int, tuple[int, int]]:
        """Return bytes reserved and capacity by tier."""
        with self._failures("read the index of"), self._index.read() as transaction:
            return {
                number: (self._index.reserved(transaction, number), tier.capacity_bytes or 0)
                for number, tier in self.tiers.items()
                if number != STAGING
            }

    def free_bytes(self) -> int:
        """Return how many bytes can be had in all tiers without evicting anything."""
        tiers = (number for number, tier in self.tiers.items() if tier.capacity_bytes is not None)
        return sum(max(0, self._space.free_bytes(number)) for number in tiers)

    def evictable_bytes(self, enough: int) -> int:
        """Return how many bytes making room could bring, or some number from `enough` on; reads record headers.

        Counted is what `_evict` would take: what is dead, and what nobody has mapped and no open dataset names.
        """
        total = 0
        for segment_id, row in self._reclaimer.rows().items():
            if total >= enough:
                break
            takes_new = row.tier != STAGING and self.tiers[row.tier].capacity_bytes is not None
            if takes_new and row.state != OPEN and self._leases.is_free(segment_id):
                live = self._reclaimer.live(segment_id, row)
                unused = zip(live, self._unused(live), strict=True)
                total += row.dead + sum(record.end - record.start for record, out in unused if out)
        return total

    def count(self) -> int:
        """Return the number of objects."""
        with self._failures("read the index of"), self._index.read() as transaction:
            return self._index.count(transaction)

    def close(self) -> None:
        """Seal what this process wrote and free all it holds.

        Views that live stay valid: the locks on their segments go with the last of them, since others may punch holes
        in what nobody has locked. The same holds for reservations that are out.
        """
        if self.closed:
            return
        self.closed = True
        if self._staging is not None:
            self._staging.close()
        writers = self._space.close()
        held = self._mapped.close()
        self.counters.close()
        self._index.close()
        self._leases.unlock(USERS_BYTE)
        self._leases.close_after([*writers, *held])

    def before_fork(self) -> None:
        """Wait until no transaction is open and nothing is being mapped or swept; start none until `after_fork_...`."""
        self._mapped.lock.acquire()
        self._index.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._index.after_fork()
        self._mapped.lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of what belongs to the parent, without a change to it; this object is then of no more use.

        Views that the child inherited are leased again, in its own name: the parent may end before it.
        """
        self.after_fork_in_parent()
        self.closed = True
        self._leases.close()
        held = self._mapped.abandon()
        with contextlib.suppress(OSError):
            leases = ByteLocks(self.directory.leases)
            for segment_id in held:
                leases.try_shared(segment_id)
            leases.close_after(held.values())
        self.counters.close()
        self._index.close()

    def _own_segments(self) -> set[int]:
        """Return the segments that this process writes."""
        staged = () if self._staging is None else self._staging.segments
        return self._space.own_segments.union(staged)

    def _check_open(self) -> None:
        if self.closed:
            raise CacheClosedError(f"the cache in {self.directory.path} was closed")

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Make a CacheError of a failure of the index or of the file system, in what the user asked for."""
        self._check_open()
        try:
            yield
        except (OSError, lmdb.Error) as error:
            raise CacheError(f"cannot {what} the cache in {self.directory.path}: {error}") from error

    def complain(self, what: str, error: Exception) -> None:
        """Count a local failure, and warn of the first of its kind; CacheClosedError if the store was closed."""
        if self.closed:
            raise CacheClosedError(f"the cache in {self.directory.path} was closed") from error
        self.counters.add("fallbacks")
        if what not in self._complaints:
            # The text, not the error: a log record that is kept would keep the error's frames, and all they hold.
            self._complaints.add(what)
            _LOG.warning(
                "cannot %s the cache in %s: %s; what it does not have is read from the cluster (said once)",
                what,
                self.directory.path,
                str(error),
            )

    def _resolve(self, key: bytes, value: bytes, digest: int, *, maps: int) -> tuple[int, View] | None:
        """Return tier and bytes of what a packed entry points to, None if that is another version, or gone.

        `maps` is how many segments had been mapped when the entry was looked up. 1. The lookup gave two entries of a
        segment. 2. Somebody swept one of them. 3. The segment is mapped, for the other. So what was mapped since the
        lookup does not keep the entry right, and it is looked up again, as in `_map`.
        """
        segment_id, payload, length, checksum, found = _unpack_entry(value)
        if found != digest:
            return None
        segment = self._mapped.get(segment_id)
        try:
            if segment is not None and segment.order >= maps and self._index.value(key) != value:
                return None
            view = None if segment is None else segment.view(payload, length)
            while view is None:  # not mapped yet, or unmapped by another thread just now
                segment = self._map(segment_id, key, value)
                if segment is None:
                    return None
                view = segment.view(payload, length)
        except (CorruptError, OSError, lmdb.Error) as error:
            self._give_in(key, value, error)
            return None
        assert segment is not None  # noqa: S101  (for the type checker: there is a view of it)
        if segment.suspect and checksum_of(view.data) != checksum:
            reason = CorruptError(f"object at {payload} of segment {segment_id:x} does not match its checksum")
            self._give_in(key, value, reason)
            return None
        segment.hits += 1
        return segment.tier, view

    def _map(self, segment_id: int, key: bytes, value: bytes) -> Segment | None:
        """Map a segment that an entry pointed to.

        1. The lookup gave the entry. 2. Here we lease and map the segment. 3. Between the two, somebody may have swept
        it, or punched out this record when another had replaced it. So look again: an entry that still is the same was
        there when we had the lease already.
        """
        with self._index.read() as transaction:
            row = self._index.segment(transaction, segment_id)
        segment = None
        if row is not None:
            segment = self._mapped.map(segment_id, row.tier, suspect=row.state == SUSPECT)
        if self._index.value(key) != value:
            return None
        if row is None or (segment is None and not self.segment_path(row.tier, segment_id).exists()):
            self._forget_entry(key, value=value)  # the file was deleted by hand, or by a power loss
        return segment

    def _give_in(self, key: bytes, value: bytes, error: Exception) -> None:
        """Make a miss of a read that failed; an object that is damaged is dropped."""
        if not isinstance(error, CorruptError):
            self.complain("read from", error)
            return
        _LOG.warning(
            "dropped a damaged object from %s: %s; it is fetched again when it is read", self.directory.path, str(error)
        )
        self.counters.add("checksum_failures")
        try:
            self._forget_entry(key, value=value)
        except lmdb.Error as failure:
            self.complain("write to the index of", failure)

    def _forget_entry(
        self, key: bytes, *, value: bytes | None = None, segment: int | None = None, payload: int | None = None
    ) -> None:
        """Forget an object, unless its entry meanwhile is another one than the one that was looked at."""
        with self._index.write() as transaction:
            entry = self._index.entry(transaction, key)
            if entry is not None and (
                ENTRY.pack(*entry) == value or (entry.segment, entry.payload) == (segment, payload)
            ):
                self._index.delete_entry(transaction, key)

    def _put_entries(self, reservations: Sequence[Reservation], entries: Sequence[Entry]) -> list[int]:
        """Write entries, and count the bytes that are dead by that; return the segments that were removed by force."""
        dead: dict[int, int] = {}
        with self._index.write() as transaction:
            rows = {entry.segment: self._index.segment(transaction, entry.segment) for entry in entries}
            for reservation, entry in zip(reservations, entries, strict=True):
                row = rows[entry.segment]
                if row is None or row.state == DOOMED:
                    continue
                before = self._index.entry(transaction, reservation.key)
                if before is not None and before.digest == entry.digest:
                    gone: Entry | None = entry  # somebody else fetched this version meanwhile: theirs stays
                else:
                    gone = self._index.put_entry(transaction, reservation.key, entry)
                if gone is not None:
                    dead[gone.segment] = dead.get(gone.segment, 0) + gone.length
            for segment_id, size in dead.items():
                self._index.add_dead(transaction, segment_id, size)
        return [segment_id for segment_id, row in rows.items() if row is None]

    def _published(self, reservation: Reservation) -> View:
        writer = reservation.writer
        view = None
        try:
            if reservation.failure is None:
                view = self._mapped.view(
                    writer.segment_id, writer.tier, offset=reservation.payload, length=reservation.length
                )
        except (CorruptError, OSError) as error:
            _LOG.debug("cannot map segment %x: %s", writer.segment_id, str(error))
        # None: it could not be written, it was removed by force, or the store was closed meanwhile
        return own_view(reservation.read()) if view is None else view

    def _make_room(self, tier: int, needed: int) -> bool:
        """Free `needed` bytes in a tier; what this process has mapped without a use for it only if it must be."""
        self._reclaimer.adopt()
        for unmap in (self._mapped.trim, self._mapped.unmap_all):
            unmap()
            if self._evict(tier, needed):
                return True
        return False

    def _evict(self, tier: int, needed: int) -> bool:
        """Give back what is dead, then what nobody uses, longest unused first, until `needed` bytes are free."""
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

    def _verify(self, segment_id: int, row: SegmentRow, progress: Callable[[Record], None]) -> list[Record]:
        """Check the objects of one segment; drop and return those that are damaged."""
        seen = {r: self._intact(segment_id, row, r, progress) for r in self._reclaimer.live(segment_id, row)}
        damaged = [record for record, intact in seen.items() if intact is False]
        for record in damaged:
            self._forget_entry(record.key, segment=segment_id, payload=record.payload)
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
