"""A segment as processes tell each other of it: `SegmentHandle` where it is sent, `RemoteSegment` where it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aiscache.errors import CorruptError
from aiscache.store.names import GENERATION, SEGMENT_HEADER_BYTES
from aiscache.view import View

if TYPE_CHECKING:
    from aiscache.store.segment import Segment


class SegmentHandle:
    """Names a segment that this process has mapped, and tells its generation. Pickles as a `RemoteSegment`."""

    __slots__ = ("_header", "address", "home", "segment_id", "tier")

    def __init__(self, home: str, *, segment_id: int, tier: int, array: View) -> None:
        self.home = home
        self.segment_id = segment_id
        self.tier = tier
        self.address = address_of(array)
        # A plain array over the memory, not `array` itself: that one refers to us.
        self._header = array.view(np.ndarray)[:SEGMENT_HEADER_BYTES].data.cast("Q")

    @property
    def generation(self) -> int:
        """How often holes were punched into the segment."""
        return self._header[GENERATION.start // 8]

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteSegment, (self.home, self.segment_id, self.tier)


class RemoteSegment:
    """A segment that another process told us of; mapped here, and leased, when a view of it is asked for."""

    __slots__ = ("_segment", "home", "segment_id", "tier")

    def __init__(self, home: str, segment_id: int, tier: int) -> None:
        self.home = home
        self.segment_id = segment_id
        self.tier = tier
        self._segment: Segment | None = None

    def view(self, *, generation: int, offset: int, length: int) -> View | None:
        """Return a range as the sender had it; None if the segment is gone, or something in it is.

        1. The sender had the segment leased when it noted the generation, so the range was whole then. 2. The sender's
        lease may end before ours begins, and a sweep may punch holes in between, which changes the generation first.
        3. Ours holds now: so if the generation is still the sender's, nothing was punched, and nothing will be.

        A segment that we mapped when it was shorter, and that was removed by force after it grew, cannot be asked for
        its length any more: what is past the length that we know is gone for us.
        """
        if self._segment is None:
            from aiscache.store.registry import store_at

            self._segment = store_at(self.home).attach(self.segment_id, self.tier)
            if self._segment is None:
                return None
        if self._segment.generation != generation:
            return None
        self._segment.hits += 1
        try:
            return self._segment.view(offset, length)
        except CorruptError:
            return None


def address_of(view: View) -> int:
    """Return where in this process's memory a view begins."""
    address: int = view.__array_interface__["data"][0]
    return address
