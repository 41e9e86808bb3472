"""Space for new objects: grants out of the capacity, and this process's segment writers.

A grant is written into the index before the file grows, and taken back after it shrank: the sum of the segments' rows
is never less than what is on disk, so the capacity holds for bytes in flight too. Grants are large while there is room
and shrink with it, so that little is left unused in other writers' hands when the cache is full.

A segment is sealed when its last reservation is settled, not before: until then it is ours, and nobody sweeps it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lmdb

from aiscache.locks import ByteLocks
from aiscache.store.directory import Directory
from aiscache.store.index import OPEN, SEALED, STAGING, Index, SegmentRow
from aiscache.store.names import PAGE, SEGMENT_HEADER_BYTES, WRITER_BYTE
from aiscache.store.record import record_span
from aiscache.store.tiers import Tier
from aiscache.store.writer import Reservation, SegmentWriter, round_to_page

_LOG = logging.getLogger("aiscache")

_LONGEST_EXTENT = 8 << 20
_SHARE = 64  # a grant takes at most this fraction of what is free
_MOST_OBJECTS = 256  # and has room for so many objects like the one that asks: what the index grows by is bounded so
_INDEX_ROOM = 256 << 10  # kept free for what the index grows by, of a large capacity; of a small one less
_LEAST_INDEX_ROOM = 64 << 10
_ENTRY_BYTES = 128  # and this for each reservation that is out: an entry takes 64 bytes of a page that is half full
_FULL_PAUSE_S = 2.0  # how long a full tier is not asked again to make room, at least
_FULL_PAUSE_FACTOR = 20  # and in units of the time that the vain search took: at most 5 % of a process's time


class Space:
    """Reserves space in the tiers, in their order. `make_room(tier, bytes)` is asked when one is full.

    `home` is the tier in the cache's directory, where other files lie beside the segments.
    """

    def __init__(
        self,
        directory: Directory,
        index: Index,
        *,
        tiers: dict[int, Tier],
        leases: ByteLocks,
        make_room: Callable[[int, int], bool],
    ) -> None:
        self._directory = directory
        self._index = index
        self._tiers = tiers
        self._leases = leases
        self._make_room = make_room
        self.home = next(tier for tier in tiers.values() if tier.path == directory.segments)
        self._writers: dict[int, SegmentWriter] = {}
        self._retired: list[SegmentWriter] = []  # full, with reservations that are still out
        self._out = 0  # reservations that are neither published nor given up
        self._full_until: dict[int, float] = {}
        self._files_bytes = 0  # what was beside the segments and the index when we last looked
        self.lock = threading.RLock()

    @property
    def own_segments(self) -> set[int]:
        """The segments that this process writes."""
        with self.lock:
            return {writer.segment_id for writer in (*self._writers.values(), *self._retired)}

    def reserve(self, *, key: bytes, digest: int, identity: bytes, length: int) -> Reservation | None:
        """Return space for an object of `length` bytes, None if no tier has any; 15 us.

        Nothing is removed from one tier while another has room.
        """
        span = record_span(identity, length)[1]
        with self.lock:
            for grow in (self._grow, self._make_room_and_grow):
                for tier in self._tiers.values():
                    if tier.capacity_bytes is not None and self._has_room(tier, span, grow):
                        writer = self._writers[tier.number]
                        reservation = writer.take(key=key, digest=digest, identity=identity, length=length)
                        self._out += 1
                        return reservation
        return None

    def free_bytes(self, tier: int) -> int:
        """Return how many bytes of the tier's capacity nobody has reserved."""
        with self._index.read() as transaction:
            return self._free(transaction, self._tiers[tier])

    def index_room(self, transaction: object) -> int:
        """Return by how many bytes the index may grow still; 8 us, and 30 us more where the capacity is nearly used.

        For objects that have their space already: what `reserve` keeps free for their entries is enough, unless LMDB
        takes new pages for each write, as it does while somebody is held up in the middle of a lookup.
        """
        capacity = self.home.capacity_bytes
        if capacity is None:
            return sys.maxsize
        left = capacity - self._index.reserved(transaction, self.home.number)
        try:
            room = left - self._files_bytes - self._index.size_bytes()
            return room if room > capacity // 8 else left - self._overhead_bytes()
        except OSError:  # removed by hand: what is written there now takes nothing of this directory
            return sys.maxsize

    @contextmanager
    def beside_segments(self, size_bytes: int) -> Iterator[bool]:
        """Tell whether a file of that size fits into the directory; nobody is given space until the block ends."""
        with self._index.write() as transaction:
            yield self._free(transaction, self.home) >= round_to_page(size_bytes)

    def give_up(self, reservation: Reservation) -> None:
        """Take back a reservation that will not be published; what cannot be cut off is counted as dead."""
        with self.lock:
            taken_back = reservation.writer.give_up(reservation)
            self.settle(reservation, dead=not taken_back)

    def settle(self, reservation: Reservation, *, dead: bool = False) -> None:
        """Note that a reservation was published or given up, and if its bytes are of no use.

        That is noted in the index when the segment is sealed: nobody looks for dead bytes in one that is written.
        """
        with self.lock:
            writer = reservation.writer
            if dead:
                writer.dead += reservation.end - reservation.start
            writer.pending -= 1
            self._out -= writer.tier != STAGING
            if writer.pending == 0 and writer in self._retired:
                self._retired.remove(writer)
                self._seal(writer)

    def add_dead(self, segment_id: int, size: int) -> None:
        """Note that bytes of a segment are of no use any more."""
        with self._index.write() as transaction:
            self._index.add_dead(transaction, segment_id, size)

    def retire_all(self) -> None:
        """Seal this process's segments, each as soon as its last reservation is settled."""
        with self.lock:
            for tier in list(self._writers):
                self._retire(tier)

    def close(self) -> list[object]:
        """Seal this process's segments; return the writers that still have reservations out.

        Their segments stay locked while those live, then they are left to who opens the cache next.
        """
        with self.lock:
            writers = (*self._writers.values(), *self._retired)
            self._writers.clear()
            self._retired.clear()
            for writer in writers:
                try:
                    if not writer.pending:
                        self._seal(writer)
                except (OSError, lmdb.Error) as error:  # who opens the cache next seals it
                    _LOG.debug("cannot seal %s: %s", writer.path, str(error))
                finally:
                    writer.close()
            return [writer for writer in writers if writer.pending]

    def forget(self, segment_id: int) -> None:
        """Stop writing to a segment that was removed by force, or by hand."""
        with self.lock:
            for number, writer in list(self._writers.items()):
                if writer.segment_id == segment_id:
                    del self._writers[number]
                    writer.close()
                    self._leases.unlock(WRITER_BYTE + segment_id)

    def _has_room(self, tier: Tier, span: int, grow: Callable[[Tier, int], bool]) -> bool:
        """Tell whether the tier's writer has room for `span` bytes, once it has grown if need be."""
        if SEGMENT_HEADER_BYTES + span > (tier.capacity_bytes or 0):
            return False
        writer = self._writers.get(tier.number)
        if writer is not None and not writer.is_whole():
            self.forget(writer.segment_id)
            writer = None
        if writer is not None and writer.position + span > max(tier.segment_bytes, writer.allocated):
            self._retire(tier.number)
            writer = None
        return (writer is not None and writer.position + span <= writer.allocated) or grow(tier, span)

    def _grow(self, tier: Tier, span: int) -> bool:
        """Give the tier's writer (a new one, if there is none) room for `span` bytes out of what is free."""
        return self._grow_by(tier, span, extra=True)

    def _make_room_and_grow(self, tier: Tier, span: int) -> bool:
        """Give the tier's writer room by removing what is not in use; where that was in vain, not again for a while."""
        if time.monotonic() < self._full_until.get(tier.number, 0):
            return False
        if tier is not self.home:
            with self._index.read() as transaction:
                if self._index_is_full(transaction):
                    return False
        began = time.monotonic()
        if self._make_room(tier.number, self._needed(tier, span)) and self._grow_by(tier, span, extra=False):
            return True
        now = time.monotonic()
        self._full_until[tier.number] = now + max(_FULL_PAUSE_S, _FULL_PAUSE_FACTOR * (now - began))
        return False

    def _needed(self, tier: Tier, span: int) -> int:
        """Return how much longer the tier's segment must be for `span` more bytes."""
        writer = self._writers.get(tier.number)
        if writer is None:
            return round_to_page(SEGMENT_HEADER_BYTES + span)
        return round_to_page(writer.position + span) - writer.allocated

    def _grow_by(self, tier: Tier, span: int, *, extra: bool) -> bool:
        writer = self._writers.get(tier.number)
        needed = self._needed(tier, span)
        most = max(needed, min(_LONGEST_EXTENT, _MOST_OBJECTS * span)) if extra else needed
        granted, segment_id = self._grant(tier, needed, most=most, writer=writer)
        if not granted and writer is not None and segment_id:  # removed by force under us: go on in a new segment
            self.forget(segment_id)
            return self._grow_by(tier, span, extra=extra)
        if not granted:
            return False
        try:
            if writer is None:
                path = tier.segment_path(segment_id)
                writer = SegmentWriter(path, segment_id=segment_id, tier=tier.number)
                self._writers[tier.number] = writer
            writer.extend(writer.allocated + granted)
        except OSError as error:  # the file system has less than the capacity says
            self._take_back(segment_id, granted, writer)
            if granted > needed:
                return self._grow_by(tier, span, extra=False)
            _LOG.debug("no space in %s: %s", tier.path, str(error))
            return False
        return True

    def _grant(self, tier: Tier, needed: int, *, most: int, writer: SegmentWriter | None) -> tuple[int, int]:
        """Return the bytes granted (0: none) and the segment they are for, both on record before anything is written.

        It is between `needed` and `most` bytes.

        1. A new segment's writer byte is locked inside the transaction that makes its row,
        2. so nobody finds a row in state OPEN without a living writer and takes it for a crashed one's.
        """
        with self._index.write() as transaction:
            free = self._free(transaction, tier)
            if free < needed:
                return 0, 0
            room = tier.segment_bytes - (writer.allocated if writer else 0)
            granted = max(needed, min(most, free // _SHARE, room) & -PAGE)
            if writer is None:
                segment_id = self._index.next_segment_id(transaction)
                self._leases.try_exclusive(WRITER_BYTE + segment_id)
                row = SegmentRow(tier.number, OPEN, 0)
            else:
                segment_id = writer.segment_id
                found = self._index.segment(transaction, segment_id)
                if found is None or found.state != OPEN:
                    return 0, segment_id
                row = found
            grown = SegmentRow(row.tier, row.state, row.reserved + granted, row.dead)
            self._index.put_segment(transaction, segment_id, grown)
        return granted, segment_id

    def _take_back(self, segment_id: int, granted: int, writer: SegmentWriter | None) -> None:
        empty = writer is None or writer.allocated == 0
        if writer is not None and empty:
            del self._writers[writer.tier]
            writer.close()
            writer.path.unlink(missing_ok=True)
        with self._index.write() as transaction:
            row = self._index.segment(transaction, segment_id)
            if row is not None:
                left = SegmentRow(row.tier, row.state, row.reserved - granted, row.dead)
                self._index.put_segment(transaction, segment_id, None if empty else left)
        if empty:
            self._leases.unlock(WRITER_BYTE + segment_id)

    def _retire(self, tier: int) -> None:
        writer = self._writers.pop(tier)
        if writer.pending:
            self._retired.append(writer)
        else:
            self._seal(writer)

    def _seal(self, writer: SegmentWriter) -> None:
        size = writer.finish()
        writer.close()
        with self._index.write() as transaction:
            row = self._index.segment(transaction, writer.segment_id)
            if row is not None:
                sealed = SegmentRow(row.tier, SEALED, size, row.dead + writer.dead)
                self._index.put_segment(transaction, writer.segment_id, sealed)
        self._leases.unlock(WRITER_BYTE + writer.segment_id)

    def _free(self, transaction: object, tier: Tier) -> int:
        capacity = tier.capacity_bytes or 0
        used = self._index.reserved(transaction, tier.number)
        if tier is self.home:
            room = min(_INDEX_ROOM, max(_LEAST_INDEX_ROOM, capacity // 128))
            used += self._overhead_bytes() + room + self._out * _ENTRY_BYTES
        elif self._index_is_full(transaction):
            return 0
        return min(capacity - used, free_on(tier))

    def _index_is_full(self, transaction: object) -> bool:
        """Tell whether there is no room at home for more entries: then only an object that goes there makes some."""
        return self.index_room(transaction) < _LEAST_INDEX_ROOM + self._out * _ENTRY_BYTES

    def _overhead_bytes(self) -> int:
        overhead = self._directory.overhead_bytes()
        self._files_bytes = overhead - self._index.size_bytes()
        return overhead


def free_on(tier: Tier) -> int:
    """Return the free bytes of the tier's file system, less some for the index: it must not be filled to the brim."""
    try:
        told = os.statvfs(tier.path)
    except OSError:  # removed by hand: making a segment there will fail, and be handled
        return tier.capacity_bytes or 0
    if told.f_blocks == 0:  # a tmpfs without a limit
        return tier.capacity_bytes or 0
    return told.f_bavail * told.f_frsize - _INDEX_ROOM
