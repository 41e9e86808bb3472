"""Reading: the index tells where an object lies; the answer is a slice of the segment as this process has it mapped.

What a lookup told may be outdated a moment later, as somebody sweeps the segment. So where the segment is mapped only
after the lookup, the entry is looked up again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import lmdb

from aiscache.errors import CorruptError
from aiscache.stats import Counters
from aiscache.store.failures import Failures
from aiscache.store.index import DISK, ENTRY, MEMORY, SUSPECT, Index
from aiscache.store.record import checksum_of
from aiscache.store.segment import MappedSegments, Segment
from aiscache.store.tiers import Tier
from aiscache.view import View

_LOG = logging.getLogger("aiscache")

_unpack_entry = ENTRY.unpack


class Reading:
    """Finds objects in the index, and gives views of them."""

    def __init__(
        self, index: Index, *, tiers: dict[int, Tier], mapped: MappedSegments, counters: Counters, failures: Failures
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._mapped = mapped
        self._counters = counters
        self._failures = failures

    def get(self, key: bytes, digest: int) -> View | None:
        """Return the object's bytes if this version of it is here; 3 us. A local failure is counted, and a miss."""
        if self._mapped.staged:
            self._mapped.trim_staged()
        maps = self._mapped.maps
        try:
            value = self._index.value(key)
        except lmdb.Error as error:
            self._failures.complain("read the index of", error)
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
            self._counters.hit(segment.tier, 1, length)  # what nearly every read of a warm cache comes to
            return view
        resolved = self._resolve(key, value, digest, maps=maps)
        if resolved is None:
            return None
        tier, view = resolved
        self._counters.hit(tier, 1, length)
        return view

    def get_many(self, keys: Sequence[bytes], digests: Sequence[int]) -> tuple[list[View | None], int]:
        """Return for each key what `get` would, and how many of that are None; one transaction, 1.3 us each."""
        if self._mapped.staged:
            self._mapped.trim_staged()
        maps = self._mapped.maps
        try:
            values = self._index.values(keys)
        except lmdb.Error as error:
            self._failures.complain("read the index of", error)
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
                self._counters.hit(tier, counts[tier], sizes[tier])
        return views, len(keys) - sum(counts)

    def contains(self, key: bytes, digest: int) -> bool:
        """Tell whether this version of the object is here, without counting a read."""
        try:
            value = self._index.value(key)
        except lmdb.Error as error:
            self._failures.complain("read the index of", error)
            return False
        return value is not None and ENTRY.unpack(value)[4] == digest

    def segments_of(self, keys: Sequence[bytes], digests: Sequence[int]) -> list[int | None]:
        """Return for each object the segment that has this version of it, without counting a read; 1 us each."""
        try:
            values = self._index.values(keys)
        except lmdb.Error as error:
            self._failures.complain("read the index of", error)
            return [None] * len(keys)
        entries = [value and _unpack_entry(value) for value in values]
        return [
            entry[0] if entry and entry[4] == digest else None for entry, digest in zip(entries, digests, strict=True)
        ]

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
        if row is None or (segment is None and not self._tiers[row.tier].segment_path(segment_id).exists()):
            self._forget(key, value)  # the file was deleted by hand, or by a power loss
        return segment

    def _give_in(self, key: bytes, value: bytes, error: Exception) -> None:
        """Make a miss of a read that failed; an object that is damaged is dropped."""
        if not isinstance(error, CorruptError):
            self._failures.complain("read from", error)
            return
        _LOG.warning(
            "dropped a damaged object from %s: %s; it is fetched again when it is read", self._failures.path, str(error)
        )
        self._counters.add("checksum_failures")
        try:
            self._forget(key, value)
        except lmdb.Error as failure:
            self._failures.complain("write to the index of", failure)

    def _forget(self, key: bytes, value: bytes) -> None:
        """Forget an object, unless its entry meanwhile is another one than the one that was looked at."""
        with self._index.write() as transaction:
            entry = self._index.entry(transaction, key)
            if entry is not None and ENTRY.pack(*entry) == value:
                self._index.delete_entry(transaction, key)
