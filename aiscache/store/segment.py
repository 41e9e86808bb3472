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
from time import monotonic
from typing import Any

from aiscache.errors import CorruptError
from aiscache.locks import ByteLocks
from aiscache.store.handle import SegmentHandle
from aiscache.store.index import STAGING
from aiscache.store.mapping import Mapping
from aiscache.store.tiers import Tier
from aiscache.uninterrupted import Uninterrupted
from aiscache.view import View

_LOOK_S = 0.2  # how long a file is trusted to be as long as it was, at least
_LOOKS_PER_S = 5000  # of one process, at all segments that it has mapped: a look takes longer than a read
_STAGED_S = 0.05  # how long a staging segment stays mapped without a read, at least


class Segment:
    """One segment mapped for reading; `hits` counts the reads since `idle()` was last asked.

    What is read from a `suspect` one is verified on each read. `tier` is what reads of it count as. `order` is how many
    were mapped before it in this process. The file's length is looked at every `look_s` seconds, if it is read.
    """

    __slots__ = (
        "_array", "_home", "_look_at", "_look_s", "_mapping", "_path", "_place", "_size",
        "hits", "order", "segment_id", "suspect", "tier",
    )  # fmt: skip

    def __init__(self, place: Tier, *, home: str, segment_id: int, suspect: bool, order: int, look_s: float) -> None:
        self._path = path = place.segment_path(segment_id)
        self._place = place.number
        self._home = home
        self._size = path.stat().st_size
        self._look_s = look_s
        self._look_at = monotonic() + look_s
        if self._size == 0:
            raise CorruptError(f"segment {path} is empty")
        self.segment_id = segment_id
        self.tier = place.number if place.counted_as is None else place.counted_as
        self._mapping = Mapping(path, max(self._size, place.segment_bytes))
        self._array: Any = None
        self._expose()
        self.suspect = suspect
        self.order = order
        self.hits = 0

    def view(self, offset: int, length: int) -> View | None:
        """Return the bytes of a range, None if the segment was unmapped. CorruptError if the file does not have them.

        1. A reader finds this segment in the table, without a lock. 2. `unmap` runs. 3. The reader comes here.
        So unmapping takes the array away first, and a reader that got it before keeps the memory mapped by it.
        """
        array = self._array
        if array is None:
            return None
        end = offset + length
        if end > self._size or monotonic() > self._look_at:
            self._look(len(array))
            if end > self._size:
                raise CorruptError(f"{self._path} has {self._size} bytes, bytes {offset} to {end} are asked for")
        return array[offset:end]  # type: ignore[no-any-return]  # typing each slice would cost 0.1 us

    def view_at_hand(self, offset: int, length: int) -> View | None:
        """Return the bytes of a range if they need neither verifying nor a look at the file, None otherwise."""
        array, end = self._array, offset + length
        if array is None or self.suspect or end > self._size or monotonic() > self._look_at:
            return None
        self.hits += 1
        return array[offset:end]  # type: ignore[no-any-return]  # as in `view`

    def _look(self, mapped_bytes: int) -> None:
        """Learn the file's length: its writer made it longer, or somebody cut it off, and touching it is a SIGBUS."""
        self._look_at = monotonic() + self._look_s
        with contextlib.suppress(FileNotFoundError):  # removed by force: what is mapped stays as long as it was
            self._size = min(self._path.stat().st_size, mapped_bytes)

    def idle(self) -> bool:
        """Tell whether nothing was read since the last call; a use is noted in the file's times, for eviction."""
        if self.hits == 0:
            return True
        self.hits = 0
        self.touch()
        return False

    def unmap(self) -> bool:
        """Unmap, unless some view of it lives; return whether it is unmapped."""
        self._array = None
        released = self._mapping.release()
        if not released:
            self._expose()
        return released

    @property
    def generation(self) -> int:
        """How often holes were punched into the segment; -1 if it was unmapped."""
        array = self._array
        return -1 if array is None else array.segment.generation

    @property
    def memory(self) -> object:
        """What lives as long as the memory is mapped."""
        return self._mapping.block

    def _expose(self) -> None:
        """Let readers have the mapping, and let what they get out of it tell other processes where it is."""
        array = self._mapping.array
        array.segment = SegmentHandle(self._home, segment_id=self.segment_id, tier=self._place, array=array)
        self._array = array

    def touch(self) -> None:
        """Note that the segment is in use now."""
        with contextlib.suppress(OSError):  # it may have been removed by force
            os.utime(self._path)


class MappedSegments:
    """The segments that this process has mapped, by id, each under a shared lease.

    `lock` guards mapping and unmapping; removing a segment happens under it too, since a process's own lease does not
    exclude the process itself.
    """

    def __init__(self, leases: ByteLocks, tiers: dict[int, Tier], *, home: str, verify_reads: bool = False) -> None:
        self._leases = leases
        self._home = home
        self._tiers = tiers
        self._verify_reads = verify_reads
        self._by_id: dict[int, Segment] = {}
        self.staged: set[int] = set()  # those of them that are staging segments
        self.maps = 0  # how many were ever mapped
        self._trimmed_at = 0.0
        self.get = self._by_id.get
        self.lock = threading.RLock()

    def __contains__(self, segment_id: int) -> bool:
        return segment_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def map(self, segment_id: int, tier: int, *, suspect: bool, is_use: bool = True) -> Segment | None:
        """Map a segment and lease it; None if it is being removed, or gone. `is_use`: note that it is in use now."""
        with self.lock:
            segment = self._by_id.get(segment_id)
            if segment is None:
                with Uninterrupted():
                    segment = self._map(segment_id, tier, suspect=suspect)
                if segment is not None and is_use:
                    segment.touch()
            return segment

    def _map(self, segment_id: int, tier: int, *, suspect: bool) -> Segment | None:
        try:
            if not self._leases.try_shared(segment_id):
                return None
        except (OSError, ValueError):  # no locks left, or closed meanwhile
            return None
        try:
            segment = Segment(
                self._tiers[tier],
                home=self._home,
                segment_id=segment_id,
                suspect=suspect or self._verify_reads,
                order=self.maps,
                look_s=max(_LOOK_S, len(self._by_id) / _LOOKS_PER_S),
            )
        except (OSError, CorruptError):
            self._leases.unlock(segment_id)
            return None
        self.maps += 1
        self._by_id[segment_id] = segment
        if tier == STAGING:
            self.staged.add(segment_id)
        return segment

    def view(
        self, segment_id: int, tier: int, *, offset: int, length: int, suspect: bool = False, is_use: bool = True
    ) -> View | None:
        """Return bytes of a segment, mapped now if it was not; None if it is gone, CorruptError if they are."""
        with self.lock:
            segment = self.map(segment_id, tier, suspect=suspect, is_use=is_use)
            return None if segment is None else segment.view(offset, length)

    def unmap(self, segment_id: int) -> bool:
        """Unmap a segment and give its lease back, unless a view of it lives."""
        with Uninterrupted(), self.lock:
            segment = self._by_id.get(segment_id)
            if segment is None:
                return True
            segment.idle()  # a use, if there was one, is noted
            if not segment.unmap():
                return False
            del self._by_id[segment_id]
            self.staged.discard(segment_id)
            self._leases.unlock(segment_id)
            return True

    def trim(self) -> int:
        """Unmap what was not read since the last call and nobody holds a view of; return how many those were."""
        with self.lock:
            return sum(self.unmap(segment.segment_id) for segment in list(self._by_id.values()) if segment.idle())

    def trim_staged(self) -> None:
        """Unmap the staging segments that were not read for a moment: who staged them waits for the space."""
        now = monotonic()
        if now - self._trimmed_at < _STAGED_S:
            return
        self._trimmed_at = now
        with self.lock:
            for segment_id in list(self.staged):
                if self._by_id[segment_id].idle():
                    self.unmap(segment_id)

    def unmap_all(self) -> None:
        """Unmap all that nobody holds a view of."""
        with self.lock:
            for segment_id in list(self._by_id):
                self.unmap(segment_id)

    def close(self) -> list[object]:
        """Unmap all; return what lives as long as the memory of those segments that views still hold."""
        with self.lock:
            self.unmap_all()
            held = [segment.memory for segment in self._by_id.values()]
            self._by_id.clear()
            self.staged.clear()
            return held

    def abandon(self) -> dict[int, object]:
        """Unmap all in a forked child, where the leases are the parent's; return id and memory of what views hold."""
        held = {number: segment.memory for number, segment in self._by_id.items() if not segment.unmap()}
        self._by_id.clear()
        return held
