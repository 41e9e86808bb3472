"""`AISParallelMapDataset`: objects by index, as buffers."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, SupportsIndex

from torch.utils.data._utils.collate import default_collate_fn_map

from aiscache.datasets.base_map import AISBaseMapDataset
from aiscache.datasets.content import collate_as_list
from aiscache.view import View


class CachedBuffer:
    """An object's bytes with the methods of the SDK's `ParallelBuffer`; read-only, where the cache has them.

    Closing it is allowed and not needed. Pickles with its bytes; from a DataLoader's worker it comes by reference.
    """

    __slots__ = ("_view",)

    def __init__(self, view: View) -> None:
        self._view: View | None = view

    @property
    def view(self) -> View:
        """The bytes as a read-only array; ValueError after `close`."""
        if self._view is None:
            raise ValueError("the buffer is closed")
        return self._view

    @property
    def buf(self) -> memoryview:
        """The bytes, without a copy."""
        return self.view.data

    def tobytes(self) -> bytes:
        """Return a copy of the bytes."""
        return self.view.tobytes()

    def close(self) -> None:
        """Let go of the bytes; may be called again."""
        self._view = None

    def __len__(self) -> int:
        return len(self.view)

    def __enter__(self) -> CachedBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedBuffer, (self.view,)


def _buffers(views: list[View]) -> list[CachedBuffer]:
    return [CachedBuffer(view) for view in views]


default_collate_fn_map.setdefault(CachedBuffer, collate_as_list)


class AISParallelMapDataset(AISBaseMapDataset):
    """A map-style dataset of objects: each sample is a tuple of object name and a buffer of its content.

    As in `aistore.pytorch`, where an object is downloaded in ranges, `num_workers` at a time. Here an object is in the
    cache, or comes there with one request, as many objects at a time as a batch misses; so `num_workers` is kept as an
    attribute and nothing more. The buffer is a `CachedBuffer`; unlike the SDK's it may cross from a DataLoader's
    worker, and need not be closed. torch's default collate keeps a batch's buffers as a list.

    The arguments are those of `AISBaseMapDataset`; the first three may be given by position. `content="bytes"` or
    "view" gives those instead of buffers.
    """

    def __init__(
        self,
        ais_source_list: Any = None,
        prefix_map: Any = None,
        num_workers: int = 16,
        *,
        content: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(ais_source_list or (), prefix_map or {}, content=content or "view", **options)
        self._num_workers = num_workers
        if content is None:
            self._convert, self._convert_all = CachedBuffer, _buffers

    @property
    def num_workers(self) -> int:
        """What was given as `num_workers`."""
        return self._num_workers

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.subset(index)
        return self._samples([self.position(index)])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[tuple[str, Any]]:
        return self._samples(self.positions(indices))
