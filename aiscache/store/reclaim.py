"""Giving space back: finding what is dead in a segment, and returning it to the system.

One step serves eviction, removal on request and tidying up: `Reclaimer.sweep(segment, drop)` forgets the records that
`drop` picks, then removes the file if nothing of use is left in it, or else punches holes where the dead records
were. It needs the segment for itself: nobody has it mapped, or the user said force.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiscache.locks import ByteLocks
from aiscache.store.index import DOOMED, OPEN, SEALED, STAGING, Index, SegmentRow
from aiscache.store.names import GENERATION, PAGE, SEGMENT_HEADER_BYTES, WRITER_BYTE
from aiscache.store.record import PENDING, Record, align, pack_header, walk
from aiscache.store.segment import MappedSegments
from aiscache.store.tiers import Tier

_LOG = logging.getLogger("aiscache")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # fallocate(2)
_FALLOCATE = ctypes.CDLL(None, use_errno=True).fallocate
_FALLOCATE.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

Drop = Callable[[Sequence[Record]], Sequence[bool]]


def keep_all(records: Sequence[Record]) -> Sequence[bool]:
    """Drop nothing: a sweep then only gives back what is dead already."""
    return [False] * len(records)


def drop_all(records: Sequence[Record]) -> Sequence[bool]:
    """Drop every record."""
    return [True] * len(records)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: objects forgotten, bytes given back; `skipped` objects are in use and were left."""

    objects: int = 0
    freed_bytes: int = 0
    skipped: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(self.objects + other.objects, self.freed_bytes + other.freed_bytes, self.skipped + other.skipped)


class Reclaimer:
    """Sweeps segments of all tiers. `own_segments()` are those that this process writes; they are never swept."""

    def __init__(
        self,
        index: Index,
        *,
        tiers: dict[int, Tier],
        leases: ByteLocks,
        mapped: MappedSegments,
        own_segments: Callable[[], set[int]],
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._leases = leases
        self._mapped = mapped
        self._own_segments = own_segments

    def rows(self) -> dict[int, SegmentRow]:
        """Return the rows of all segments."""
        with self._index.read() as transaction:
            return self._index.segments(transaction)

    def adopt(self) -> int:
        """Seal the segments whose writers died (staging is removed), finish removals; return how many there were."""
        adopted = 0
        self._index.forget_dead_readers()
        for segment_id, row in self.rows().items():
            try:
                if row.state == DOOMED:
                    self.sweep(segment_id, row, drop_all, force=True)
                elif row.tier == STAGING and segment_id not in self._own_segments():
                    adopted += self._remove_staged(segment_id, row)
                elif row.state == OPEN and segment_id not in self._own_segments():
                    adopted += self._adopt(segment_id)
            except OSError as error:  # too many open files, say: the next one who comes by will do it
                _LOG.debug("cannot seal segment %x: %s", segment_id, str(error))
        return adopted

    def sweep(self, segment_id: int, row: SegmentRow, drop: Drop, *, force: bool = False) -> Swept | None:
        """Forget the records that `drop` picks and give their bytes back; None if the segment is in use.

        With `force` the entries go in any case; bytes that somebody has mapped come free when they are unmapped.
        """
        own = segment_id in self._own_segments()
        if (row.state == OPEN or own) and not force:
            return None
        with self._mapped.lock:
            alone = segment_id not in self._mapped and self._leases.try_exclusive(segment_id)
            if not alone and not force:
                return None
            try:
                return self._sweep(segment_id, drop, alone=alone and not own)
            finally:
                if alone:
                    self._leases.unlock(segment_id)

    def would_sweep(self, segment_id: int, row: SegmentRow, drop: Drop, *, force: bool) -> Swept:
        """Return about what `sweep` would do; holes are in whole pages, so a little less may come free."""
        live = self.live(segment_id, row)
        dropped = [record for record, out in zip(live, drop(live), strict=True) if out]
        in_use = row.state == OPEN or segment_id in self._mapped or not self._leases.is_free(segment_id)
        if in_use and not force:
            return Swept(skipped=len(dropped))
        if live and len(dropped) == len(live):
            return Swept(len(dropped), row.reserved)
        return Swept(len(dropped), sum(record.end - record.start for record in dropped))

    def live(self, segment_id: int, row: SegmentRow) -> list[Record]:
        """Return the records of a segment that the index points to."""
        try:
            records = list(walk(self._tiers[row.tier].segment_path(segment_id)))
        except FileNotFoundError:
            return []
        with self._index.read() as transaction:
            return [record for record in records if self._points_to(transaction, segment_id, record)]

    def _sweep(self, segment_id: int, drop: Drop, *, alone: bool) -> Swept:
        """Sweep a segment in three steps, each of which leaves to `adopt` and later sweeps what it needs to go on.

        1. The entries go, and what they pointed to is counted as dead, or the segment as doomed if nothing is left.
        2. The file is removed, or holes are punched in it. 3. The row says what is left.
        """
        with self._index.read() as transaction:
            row = self._index.segment(transaction, segment_id)
        if row is None:  # somebody else swept it
            return Swept()
        path = self._tiers[row.tier].segment_path(segment_id)
        live = self.live(segment_id, row)
        dropped = [record for record, out in zip(live, drop(live), strict=True) if out]
        if live and not dropped and not row.dead:
            return Swept()
        with self._index.write() as transaction:
            row = self._index.segment(transaction, segment_id)
            if row is None:
                return Swept()
            if row.state == OPEN:  # its writer published on: what came since is kept
                known = {record.start for record in live}
                live += [r for r in self._live(transaction, segment_id, path) if r.start not in known]
            for record in dropped:
                if self._points_to(transaction, segment_id, record):
                    self._index.delete_entry(transaction, record.key)
            dead = row.dead + sum(record.end - record.start for record in dropped)
            empty = len(dropped) == len(live)
            self._index.put_segment(
                transaction, segment_id, SegmentRow(row.tier, DOOMED if empty else row.state, row.reserved, dead)
            )
        freed = 0
        if empty:
            path.unlink(missing_ok=True)
            freed = self._set_reserved(segment_id, 0)
        elif alone and row.state != OPEN:
            gone = {record.start for record in dropped}
            _punch(path, [record for record in live if record.start not in gone])
            freed = self._set_reserved(segment_id, path.stat().st_blocks * 512)
        return Swept(len(dropped), freed)

    def _set_reserved(self, segment_id: int, size: int) -> int:
        """Note what a segment still takes on disk, nothing of it dead; return how much less that is."""
        with self._index.write() as transaction:
            row = self._index.segment(transaction, segment_id)
            if row is None:
                return 0
            left = SegmentRow(row.tier, row.state, size) if size else None
            self._index.put_segment(transaction, segment_id, left)
        return max(0, row.reserved - size)

    def _live(self, transaction: Any, segment_id: int, path: Path) -> list[Record]:
        try:
            return [record for record in walk(path) if self._points_to(transaction, segment_id, record)]
        except FileNotFoundError:
            return []

    def _points_to(self, transaction: Any, segment_id: int, record: Record) -> bool:
        entry = self._index.entry(transaction, record.key)
        return entry is not None and entry.segment == segment_id and entry.payload == record.payload

    def _adopt(self, segment_id: int) -> bool:
        """Seal one segment if its writer is dead: the kernel freed the writer's byte."""
        if not self._leases.try_exclusive(WRITER_BYTE + segment_id):
            return False
        try:
            with self._index.read() as transaction:
                row = self._index.segment(transaction, segment_id)
            if row is None or row.state != OPEN:  # sealed or adopted since the caller looked
                return False
            _LOG.info("sealing segment %x, whose writer ended without closing it", segment_id)
            self._seal(segment_id, row)
        finally:
            self._leases.unlock(WRITER_BYTE + segment_id)
        return True

    def _remove_staged(self, segment_id: int, row: SegmentRow) -> bool:
        """Remove a staging segment if its owner is dead."""
        if not self._leases.try_exclusive(WRITER_BYTE + segment_id):
            return False
        try:
            self.sweep(segment_id, row, drop_all, force=True)
        finally:
            self._leases.unlock(WRITER_BYTE + segment_id)
        return True

    def _seal(self, segment_id: int, row: SegmentRow) -> None:
        path = self._tiers[row.tier].segment_path(segment_id)
        live = self.live(segment_id, row)
        sealed = None
        if live:
            records = list(walk(path))
            os.truncate(path, records[-1].end)
            dead = sum(record.end - record.start for record in records) - sum(r.end - r.start for r in live)
            sealed = SegmentRow(row.tier, SEALED, path.stat().st_blocks * 512, dead)
        else:
            path.unlink(missing_ok=True)
        with self._index.write() as transaction:
            self._index.put_segment(transaction, segment_id, sealed)


def _punch(path: Path, live: list[Record]) -> None:
    """Give back the pages between the live records.

    The segment's generation goes up first: who was told of a place in it looks that up again. Each gap then becomes one
    filler record, so that a walk (also one after a crash in the middle of this) finds the records behind it; then its
    whole pages after the filler's header are punched out.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        used = os.fstat(fd)
        generation = int.from_bytes(os.pread(fd, 8, GENERATION.start), "little") + 1
        os.pwrite(fd, generation.to_bytes(8, "little"), GENERATION.start)
        start = SEGMENT_HEADER_BYTES
        for record in live:
            _fill(fd, start, record.start)
            start = record.end
        os.ftruncate(fd, start)
        os.utime(fd, ns=(used.st_atime_ns, used.st_mtime_ns))  # this was no use of it
    finally:
        os.close(fd)


def _fill(fd: int, start: int, end: int) -> None:
    if end <= start:
        return
    length = end - start - SEGMENT_HEADER_BYTES
    filler = pack_header(state=PENDING, key=bytes(16), digest=0, identity=b"", length=length, checksum=0)
    os.pwrite(fd, filler, start)
    first, last = (align(start + len(filler)) + PAGE - 1) & -PAGE, end & -PAGE
    if first < last and _FALLOCATE(fd, _KEEP_SIZE | _PUNCH_HOLE, first, last - first) != 0:
        _LOG.debug("cannot punch a hole: %s", os.strerror(ctypes.get_errno()))
