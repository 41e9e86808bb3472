"""Publishing: space for an object is reserved, filled, and published or given up.

The bytes and the record's header are complete before the entry that points to them, so no reader ever finds half an
object.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

import lmdb

from aiscache.errors import CorruptError
from aiscache.stats import Counters
from aiscache.store.failures import Failures
from aiscache.store.index import DOOMED, STAGING, Entry, Index
from aiscache.store.names import PAGE
from aiscache.store.segment import MappedSegments
from aiscache.store.space import Space
from aiscache.store.staging import Staging
from aiscache.store.writer import Reservation
from aiscache.uninterrupted import Uninterrupted
from aiscache.view import View, own_view

# What a transaction takes of new pages while somebody is held up in a lookup, at most: 6 were seen for one entry, 21
# for 8 entries and 86 for 64, of 50,000 in all. Otherwise it takes next to none.
_COMMIT_BYTES, _ENTRY_BYTES = 8 * PAGE, 2 * PAGE

_LOG = logging.getLogger("aiscache")


class Publishing:
    """Brings objects into the store."""

    def __init__(
        self, index: Index, *, space: Space, mapped: MappedSegments, counters: Counters, failures: Failures
    ) -> None:
        self._index = index
        self._space = space
        self._mapped = mapped
        self._counters = counters
        self._failures = failures

    def reserve(
        self, *, key: bytes, digest: int, identity: bytes, length: int, staging: Staging | None = None
    ) -> Reservation | None:
        """Return space for an object, None if there is none: the caller then does without the store.

        With `staging` that has the space where the cache itself has none.
        """
        self._failures.check_open()
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
            self._failures.complain("make room in", error)
            return None
        if reservation is None:
            self._counters.add("rejected")
        return reservation

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

    def give_up(self, reservation: Reservation) -> None:
        """Take back a reservation that was not published."""
        try:
            with Uninterrupted():
                self._space.give_up(reservation)
        except (OSError, lmdb.Error) as error:
            self._failures.complain("take back a reservation in", error)

    def _enter(self, reservations: Sequence[Reservation]) -> None:
        """Write the headers and the entries of reservations.

        1. The headers are written, which makes the records good.
        2. The entries are written, unless the segment was removed by force meanwhile (its row is gone then), or the
           index could grow beyond the capacity by them.

        What could not be written gets no entry: its space is dead.
        """
        rest = [reservation for reservation in reservations if self._commit(reservation)]
        try:
            while rest:
                rest = self._put_entries(rest)
        except lmdb.Error as error:  # a full disk, a full index; or closed meanwhile, which is no reason to lose bytes
            self._failures.complain("write to the index of", error)

    def _commit(self, reservation: Reservation) -> bool:
        try:
            if reservation.failure is None:
                reservation.commit()
        except OSError as error:
            reservation.spill(error)
        if reservation.failure is None:
            return True
        self._failures.complain("write to", reservation.failure)
        return False

    def _put_entries(self, reservations: Sequence[Reservation]) -> list[Reservation]:
        """Write entries in one transaction, and count the bytes that are dead by that; return what is left to do.

        These are as many as the index surely has room for. If it has none for any, all are refused.
        """
        dead: dict[int, int] = {}
        now: list[Reservation] = []
        later: list[Reservation] = []
        with self._index.write() as transaction:
            room = (self._space.index_room(transaction) - _COMMIT_BYTES) // _ENTRY_BYTES
            for reservation in reservations:
                staged = reservation.writer.tier == STAGING  # where the budget counts the entries
                (now if staged or len(now) < room else later).append(reservation)
            entries = [Entry(r.writer.segment_id, r.payload, r.length, r.checksum, r.digest) for r in now]
            rows = {entry.segment: self._index.segment(transaction, entry.segment) for entry in entries}
            for reservation, entry in zip(now, entries, strict=True):
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
        for segment_id in [segment_id for segment_id, row in rows.items() if row is None]:
            self._space.forget(segment_id)
        if now:
            return later
        for reservation in later:
            reservation.spill(OSError(errno.ENOSPC, "the index has no room for it within the capacity"))
            self._counters.add("rejected")
        return []

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

    def _settle(self, reservations: Sequence[Reservation]) -> None:
        try:
            for reservation in reservations:
                self._space.settle(reservation, dead=reservation.failure is not None)
        except (OSError, lmdb.Error) as error:  # the segment stays open, and is sealed by who opens the cache next
            self._failures.complain("seal a segment of", error)
