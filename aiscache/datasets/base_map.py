"""`AISBaseMapDataset`: extend this for map-style datasets of your own."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, cast

from torch.utils.data import Dataset, Subset

from aiscache.datasets.listed import Listed

_INTS = {int}


class AISBaseMapDataset(Listed, Dataset, ABC):  # type: ignore[misc]
    """A map-style dataset over the objects of AIS sources, read through the cache.

    A subclass says in `__getitem__` what a sample is: `read(index)` gives an object's bytes, `manifest.name(index)` its
    name. When a DataLoader asks for a batch, what is missing of it is fetched together before the samples are made.

    Arguments:
        ais_source_list: a source (bucket, object group), or a list of them.
        prefix_map: per source, the prefix or the list of prefixes that names must begin with.
        etl_name: an ETL of the cluster through which all objects are read.
        cache: a Cache, a path, None for the default cache, False for none.
        content: "bytes", or "view" for read-only arrays where the bytes lie.
        max_listing_age_s: use a stored listing that is no older, in seconds, instead of a new one; 0 lists anew.
        on_shrink: "warn" or "error", if the listing has fewer objects than the stored one.
        show_progress: on a terminal, a bar while the objects are listed, and while shards are looked into.

    Raises ConfigError for a bad argument and OriginError (`aiscache.errors`) if the sources cannot be listed.
    """

    def __len__(self) -> int:
        return len(self.manifest)

    @abstractmethod
    def __getitem__(self, index: Any) -> Any:
        """Return the sample at an index; negative ones count from the end."""

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Any]:
        """Return a batch of samples; what is missing in the cache is fetched together first."""
        rows = self.positions(indices)
        with self._reader.holding(rows):
            return [self[index] for index in indices]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def subset(self, indices: slice) -> Subset[Any]:
        """Return the samples of a slice as a `torch.utils.data.Subset`."""
        return Subset(self, range(len(self))[indices])

    def positions(self, indices: Sequence[SupportsIndex]) -> Sequence[int]:
        """Return what `position` would of each; a twentieth of its time where all are plain and not negative."""
        if isinstance(indices, list | tuple | range) and set(map(type, indices)) == _INTS:
            rows = cast(Sequence[int], indices)
            if min(rows) >= 0 and max(rows) < len(self.manifest):
                return rows
        return [self.position(index) for index in indices]

    def position(self, index: SupportsIndex) -> int:
        """Return the row of the listing that an index means; IndexError if it is out of range."""
        row = operator.index(index)
        count = len(self.manifest)
        if not -count <= row < count:
            raise IndexError(f"<{type(self).__name__}> index {row} is out of range for {count} objects")
        return row + count if row < 0 else row

    @property
    def _obj_list(self) -> list[Any]:
        """The name under which code written for `aistore.pytorch` finds the SDK objects."""
        return self.get_obj_list()
