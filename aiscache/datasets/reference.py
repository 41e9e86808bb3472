"""Samples that cross processes by reference: where the bytes are, instead of the bytes.

A DataLoader's worker sends its batches through a pipe, pickled by multiprocessing's `ForkingPickler`. With the
reducers registered here a `View` goes as (segment, generation, offset, length), and the trainer gets a view of its own
mapping; a `CachedBytes` goes the same way, and the trainer copies the bytes from there. All other pickling (`pickle`,
`torch.save`, `copy`) carries the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from torch.utils.data import get_worker_info

from aiscache.datasets.heap import keep_freed_memory
from aiscache.errors import CacheError
from aiscache.store.handle import RemoteSegment, SegmentHandle, address_of
from aiscache.view import View

LEAST_BYTES = 1024
"""Below this, the bytes of a view are smaller and faster to send than what tells where they are."""

LEAST_COPIED_BYTES = 8192
"""The same for what is sent as `bytes`, which the trainer copies in either case: 4,000 bytes went through the pipe in
two thirds of the time, 32,000 in the double."""


class CachedBytes(bytes):
    """The bytes of an object, as a DataLoader's worker has them: they remember where they came from."""

    place: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (bytes(self),)


def content_bytes(view: View) -> bytes:
    """Return a view's bytes; in a DataLoader's worker as `CachedBytes`, which are made to be sent away."""
    keep_freed_memory()
    return view.tobytes() if get_worker_info() is None else _sendable(view)


def contents_bytes(views: Sequence[View]) -> list[bytes]:
    """Return what `content_bytes` would of each."""
    keep_freed_memory()
    if get_worker_info() is not None:
        return [_sendable(view) for view in views]
    return [view.tobytes() for view in views]


def _sendable(view: View) -> bytes:
    place = _place(view) if len(view) >= LEAST_COPIED_BYTES else None
    if place is None:
        return view.tobytes()
    content = CachedBytes(view)
    content.place = place
    return content


def _place(view: View) -> tuple[Any, ...] | None:
    """Return (segment, generation, offset, length, sample), None for a view of this process's own memory."""
    handle = getattr(view.base, "segment", None)
    if not isinstance(handle, SegmentHandle) or view.strides != (1,):
        return None
    return handle, handle.generation, address_of(view) - handle.address, len(view), getattr(view, "sample", None)


def _reduce_view(view: View) -> tuple[Any, ...]:
    place = _place(view) if view.nbytes >= LEAST_BYTES else None
    return view.__reduce__() if place is None else (receive_view, place)


def _reduce_bytes(content: CachedBytes) -> tuple[Any, ...]:
    return receive_bytes, content.place


def receive_view(segment: RemoteSegment, generation: int, offset: int, length: int, sample: Any) -> View:
    """Return the view that another process sent, read again if it is gone here; CacheError if it cannot be."""
    view = segment.view(generation=generation, offset=offset, length=length)
    if view is not None:
        return view
    if sample is None:
        raise CacheError(
            f"a view of segment {segment.segment_id:x} in {segment.home} was sent by another process, and the segment "
            f"was removed before it arrived (evict with force, or clear); read the object again"
        )
    reader, row = sample
    again: View = reader.read(row)
    return again


def receive_bytes(segment: RemoteSegment, generation: int, offset: int, length: int, sample: Any) -> bytes:
    """Return the bytes that another process sent, copied from this process's own mapping."""
    keep_freed_memory()
    return bytes(receive_view(segment, generation, offset, length, sample))


ForkingPickler.register(View, _reduce_view)
ForkingPickler.register(CachedBytes, _reduce_bytes)
