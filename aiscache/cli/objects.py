"""The objects of a cache one by one, as its segments have them; nothing is opened for use, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import lmdb

from aiscache.cli.look import Look
from aiscache.cli.reading import TIER_NAMES, ReadOnlyIndex, opened_index, segment_file
from aiscache.errors import CacheError
from aiscache.keys import ObjectRef
from aiscache.store.index import ENTRY
from aiscache.store.record import Record, walk

_TOGETHER = 512  # records looked up in one transaction


class CachedObject(NamedTuple):
    """An object that can be read now. `used_at`: when its segment was read or written last, in seconds of the epoch."""

    ref: ObjectRef
    size: int
    version: str
    tier: str
    used_at: float


def objects_in(cache: Path, look: Look) -> Iterator[CachedObject]:
    """Yield the objects of a cache, segment by segment, oldest first; 8 us each, and from the first moment on.

    What is removed or added meanwhile may be missing or be there. CacheError if the index cannot be trusted.
    """
    if not look.trusted:
        raise CacheError(f"the index of {cache} is not made yet since the machine was started; run: aiscache repair")
    try:
        with opened_index(cache) as index:
            with index.read() as transaction:
                rows = index.segments(transaction)
            for segment_id, row in rows.items():
                if row.tier in TIER_NAMES:
                    path = segment_file(cache, segment_id, row.tier, file_system=look.file_system)
                    yield from _objects_of(index, path, segment_id, tier=TIER_NAMES[row.tier])
    except lmdb.Error as error:
        raise CacheError(f"the index of {cache} cannot be read: {error}; run: aiscache repair") from error


def _objects_of(index: ReadOnlyIndex, path: Path, segment_id: int, *, tier: str) -> Iterator[CachedObject]:
    """Yield the objects of one segment."""
    try:
        used_at = path.stat().st_mtime
        records = walk(path)
        while block := list(islice(records, _TOGETHER)):
            for record in _live(index, segment_id, block):
                yield CachedObject(record.ref, record.length, f"{record.digest:016x}", tier, used_at)
    except FileNotFoundError:  # it was removed meanwhile
        return


def _live(index: ReadOnlyIndex, segment_id: int, records: list[Record]) -> Iterator[Record]:
    """Yield the records that the index points to."""
    for record, value in zip(records, index.values([record.key for record in records]), strict=True):
        if value is not None and ENTRY.unpack(value)[:2] == (segment_id, record.payload):
            yield record
