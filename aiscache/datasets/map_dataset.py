"""`AISMapDataset`: objects by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

from aiscache.datasets.base_map import AISBaseMapDataset


class AISMapDataset(AISBaseMapDataset):
    """A map-style dataset of objects: each sample is a tuple of object name and content.

    The arguments are those of `AISBaseMapDataset`; the first three may be given by position, as in `aistore.pytorch`.
    `dataset[i]` of an object that is cached makes no request; a slice gives a `Subset`. A batch (`__getitems__`, which
    torch's DataLoader calls) looks into the index once and fetches its misses together.
    """

    def __init__(
        self,
        ais_source_list: Any = (),
        prefix_map: Any = None,
        etl_name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(ais_source_list, prefix_map or {}, etl_name=etl_name, **options)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.subset(index)
        row = index if type(index) is int and 0 <= index < self._length else self.position(index)
        return self.manifest.name(row), self._convert(self._reader.read(row))

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[tuple[str, Any]]:
        return self._samples(self.positions(indices))
