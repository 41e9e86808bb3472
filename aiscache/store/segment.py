"""Segments: append-only files of records, mapped by their readers.

`Segment` is one file as a reader has it mapped. `MappedSegments` are those of this process, each under a lease: a
shared byte lock that tells every other process that the segment is in use. Who wants to remove a segment takes the
same byte for itself alone, and so removes none that is mapped anywhere.

A segment's id is never used again, and its file is never written over: a view stays right for as long as it lives,
even if the segment was removed by force meanwhile (the mapping keeps the file's pages).
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import cast

from aiscache.errors import CorruptError
from aiscache.locks import ByteLocks
from aiscache.store.mapping import Mapping
from aiscache.store.tiers import Tier
from aiscache.view import View


class Segment:
    """One segment mapped for reading; `hits` counts the reads since `idle()` was last asked."""

    __slots__ = ("_mapping", "_path", "_size", "array", "hits", "segment_id", "suspect", "tier")

    def __init__(self, path: Path, *, segment_id: int, tier: int, suspect: bool, longest: int) -> None:
        self._path = path
        self._size = path.stat().st_size
        if self._size == 0:
            raise CorruptError(f"segment {path} is empty")
        self._mapping = Mapping(path, max(self._size, longest))
        self.array = self._mapping.array
        self.segment_id = segment_id
        self.tier = tier
        self.suspect = suspect
        self.hits = 0

    def view(self, offset: int, length: int) -> View:
        """Return the bytes of a range as a View. CorruptError if the file does not have them."""
        end = offset + length
        if end > self._size:
            self._size = min(self._path.stat().st_size, len(self.array))  # the writer made it longer
            if end > self._size:
                raise CorruptError(f"{self._path} has {self._size} bytes, bytes {offset} to {end} are asked for")
        return cast(View, self.array[offset:end])

    def idle(self) -> bool:
        """Tell whether nothing was read since the last call."""
        hits, self.hits = self.hits, 0
        return hits == 0

    def unmap(self) -> bool:
        """Unmap, unless some view of it lives; return whether it is unmapped."""
        del self.array
        released = self._mapping.release()
        if not released:
            self.array = self._mapping.array
        return released

    def touch(self) -> None:
        """Note the time of use where eviction looks for it: in the file's times."""
        with contextlib.suppress(OSError):  # it may have been removed by force
            os.utime(self._path)


class MappedSegments:
    """The segments that this process has mapped, by id, each under a shared lease.

    `lock` guards mapping and unmapping; removing a segment happens under it too, since a process's own lease does not
    exclude the process itself.
    """

    def __init__(self, leases: ByteLocks, tiers: dict[int, Tier]) -> None:
        self._leases = leases
        self._tiers = tiers
        self._by_id: dict[int, Segment] = {}
        self.get = self._by_id.get
        self.lock = threading.RLock()

    def __contains__(self, segment_id: int) -> bool:
        return segment_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def map(self, segment_id: int, tier: int, *, suspect: bool) -> Segment | None:
        """Map a segment and lease it; None if it is being removed, or gone."""
        with self.lock:
            segment = self._by_id.get(segment_id)
            if segment is not None:
                return segment
            if not self._leases.try_shared(segment_id):
                return None
            try:
                place = self._tiers[tier]
                segment = Segment(
                    place.segment_path(segment_id),
                    segment_id=segment_id,
                    tier=tier,
                    suspect=suspect,
                    longest=place.segment_bytes,
                )
            except (OSError, CorruptError):
                self._leases.unlock(segment_id)
                return None
            segment.touch()
            self._by_id[segment_id] = segment
            return segment

    def unmap(self, segment_id: int) -> bool:
        """Unmap a segment and give its lease back, unless a view of it lives."""
        with self.lock:
            segment = self._by_id.get(segment_id)
            if segment is None:
                return True
            if not segment.unmap():
                return False
            segment.touch()
            del self._by_id[segment_id]
            self._leases.unlock(segment_id)
            return True

    def trim(self) -> int:
        """Unmap what was not read since the last call and nobody holds a view of; return how many those were."""
        with self.lock:
            return sum(self.unmap(segment.segment_id) for segment in list(self._by_id.values()) if segment.idle())

    def unmap_all(self) -> None:
        """Unmap all that nobody holds a view of."""
        with self.lock:
            for segment_id in list(self._by_id):
                self.unmap(segment_id)

    def forget(self, segment_id: int) -> None:
        """Drop a segment that was removed by force; views that live keep their mapping."""
        with self.lock:
            if self._by_id.pop(segment_id, None) is not None:
                self._leases.unlock(segment_id)
