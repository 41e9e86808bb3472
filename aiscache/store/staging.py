"""Staging: transient segments, for objects that are read once and that the cache has no room for.

Each process that stages has segments of its own, within a budget of its own. Their entries are in the index like any
other, so readers find them as hits. Their owner drops them: the entries first, so that nobody begins to read; then the
file, as soon as nobody has it mapped. Until then its bytes count against the budget.

A staging segment keeps its writer's lock for all of its life. Where that lock is free, the owner died: whoever opens
the cache, or makes room in it, removes the segment (`Reclaimer.adopt`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field

import lmdb

from aiscache.locks import ByteLocks
from aiscache.store.index import OPEN, STAGING, Index, SegmentRow
from aiscache.store.names import SEGMENT_HEADER_BYTES, WRITER_BYTE
from aiscache.store.record import record_span
from aiscache.store.segment import MappedSegments
from aiscache.store.space import free_on
from aiscache.store.tiers import Tier
from aiscache.store.writer import Reservation, SegmentWriter, round_to_page

_LOG = logging.getLogger("aiscache")

_PARTS = 16  # segments that the budget is divided into: what is half used, or still mapped somewhere, costs that much
_LEAST_SEGMENT, _LONGEST_SEGMENT = 64 << 10, 8 << 20
_ENTRY_BYTES = 256  # what the index grows by for an object, which counts too


@dataclass(slots=True)
class _Held:
    """A segment of ours: what it takes of the budget, the keys of what is in it, and whether those are forgotten."""

    writer: SegmentWriter
    cost_bytes: int
    keys: list[bytes] = field(default_factory=list)
    forgotten: bool = False


class Staging:
    """The staging segments of one process, `budget_bytes` at most. Made by `Store.open_staging`."""

    def __init__(
        self, index: Index, *, tier: Tier, leases: ByteLocks, mapped: MappedSegments, budget_bytes: int
    ) -> None:
        self._index = index
        self._tier = tier
        self._leases = leases
        self._mapped = mapped
        self._budget_bytes = budget_bytes
        self._segment_bytes = min(max(_LEAST_SEGMENT, budget_bytes // _PARTS), _LONGEST_SEGMENT) & -_LEAST_SEGMENT
        self._held: dict[int, _Held] = {}
        self._writing: _Held | None = None
        self._lock = threading.RLock()

    @property
    def segments(self) -> list[int]:
        """The ids of the segments that are held, oldest first."""
        return list(self._held)

    @property
    def used_bytes(self) -> int:
        """What of the budget is taken."""
        return sum(held.cost_bytes for held in self._held.values())

    def reserve(self, *, key: bytes, digest: int, identity: bytes, length: int) -> Reservation | None:
        """Return space for an object, None if the budget or the file system has none."""
        span = record_span(identity, length)[1]
        with self._lock:
            held = self._writing
            if held is None or held.writer.position + span > held.writer.allocated:
                if held is not None:
                    held.writer.close()  # its file and its mapping; reservations that are out keep what they need
                held = self._writing = self._grow(span)
            if held is None:
                return None
            held.keys.append(key)
            return held.writer.take(key=key, digest=digest, identity=identity, length=length)

    def drop(self, segment_id: int) -> bool:
        """Forget what is in a segment, and remove it; False if somebody has it mapped still: try again later."""
        with self._lock:
            held = self._held.get(segment_id)
            if held is None:
                return True
            if held.writer.pending:
                return False
            if self._writing is held:
                self._writing = None
            if not held.forgotten:
                self._forget(segment_id, held)
            with self._mapped.lock:
                if not self._mapped.unmap(segment_id) or not self._leases.try_exclusive(segment_id):
                    return False
                self._remove(segment_id, held)
                self._leases.unlock(segment_id)
            return True

    def close(self) -> None:
        """Remove all, also what is in use: who has it mapped keeps it until it is unmapped."""
        with self._lock:
            self._writing = None
            for segment_id, held in list(self._held.items()):
                try:
                    if not held.forgotten:
                        self._forget(segment_id, held)
                    self._mapped.unmap(segment_id)
                    self._remove(segment_id, held)
                except (OSError, lmdb.Error) as error:  # who opens the cache next does it
                    _LOG.debug("cannot remove %s: %s", held.writer.path, str(error))
            with contextlib.suppress(OSError):  # it is not there, or others have segments in it
                self._tier.path.rmdir()

    def _grow(self, span: int) -> _Held | None:
        """Begin a segment, of the usual length or as long as one object needs.

        1. The writer's lock is taken inside the transaction that makes the row, 2. so nobody finds the row without it,
        and takes us for dead.
        """
        size = max(self._segment_bytes, round_to_page(SEGMENT_HEADER_BYTES + span))
        cost_bytes = size + (size // span + 1) * _ENTRY_BYTES
        if self.used_bytes + cost_bytes > self._budget_bytes:
            return None
        self._tier.path.mkdir(mode=0o700, exist_ok=True)
        if size > free_on(self._tier):
            return None
        with self._index.write() as transaction:
            segment_id = self._index.next_segment_id(transaction)
            self._leases.try_exclusive(WRITER_BYTE + segment_id)
            self._index.put_segment(transaction, segment_id, SegmentRow(STAGING, OPEN, size))
        writer = self._new_file(segment_id)
        held = self._held[segment_id] = _Held(writer, cost_bytes)
        try:
            writer.extend(size)
        except OSError as error:  # the file system is full
            _LOG.debug("no space in %s: %s", self._tier.path, str(error))
            self._remove(segment_id, held)
            return None
        return held

    def _new_file(self, segment_id: int) -> SegmentWriter:
        while True:
            with contextlib.suppress(FileNotFoundError):
                return SegmentWriter(self._tier.segment_path(segment_id), segment_id=segment_id, tier=STAGING)
            self._tier.path.mkdir(mode=0o700)  # another one who stages removed the empty directory, just now

    def _forget(self, segment_id: int, held: _Held) -> None:
        with self._index.write() as transaction:
            for key in held.keys:
                entry = self._index.entry(transaction, key)
                if entry is not None and entry.segment == segment_id:
                    self._index.delete_entry(transaction, key)
        held.forgotten = True

    def _remove(self, segment_id: int, held: _Held) -> None:
        held.writer.path.unlink(missing_ok=True)
        with self._index.write() as transaction:
            self._index.put_segment(transaction, segment_id, None)
        self._leases.unlock(WRITER_BYTE + segment_id)
        held.writer.close()
        del self._held[segment_id]
