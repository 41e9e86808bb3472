"""`AISShardDataset`: the samples of WebDataset shards by index."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
from torch.utils.data import Dataset, Subset

from aiscache.datasets.listed import Listed
from aiscache.datasets.shard_reader import AISShardReader
from aiscache.datasets.shards import Shards
from aiscache.datasets.split import Order
from aiscache.view import own_view


class AISShardDataset(Listed, Dataset):  # type: ignore[misc]
    """A map-style dataset of the samples in tar shards: `dataset[i]` is the basename and the contents by extension.

    Samples are those of `AISShardReader`, in its order, with a value for every extension that any shard has (empty
    where a sample lacks it). Shuffling, samplers, subsets and batches work as on objects.

    Making the first dataset of a listing on a machine reads all shards once, through the cache, to see where their
    members lie; that is kept beside the listing, for all later ones. A random sample of a *compressed* shard means
    decompressing all of it (two are kept per process): use AISShardReader for those.

    The arguments are those of `AISBaseMapDataset`. Raises ShardError for an object that is no whole archive.
    """

    def __init__(
        self,
        bucket_list: Any,
        prefix_map: Any = None,
        etl_name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(bucket_list, prefix_map or {}, etl_name=etl_name, **options)
        self._shards = Shards(self._reader, self._convert)
        self._shards.complete(show_progress=self._show_progress)
        members = self._shards.members
        if any(members.get(row) is None for row in range(len(self.manifest))):
            self._shards.complete()  # what the file had of a shard was damaged
        self._starts: Order = np.concatenate([[0], np.cumsum(members.counts())]).astype(np.int64)
        known = [index for row in range(len(self.manifest)) if (index := members.get(row)) is not None]
        self._extensions = list(dict.fromkeys(name for index in known for name in index.extensions))
        self._empty = b"" if self._content == "bytes" else own_view(b"")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        place = self.position(index)
        row = bisect_right(self._starts, place) - 1
        basename, contents = self._shards.sample(self._shards.open(row), place - self._starts.item(row))
        return basename, AISShardReader.ZeroDict(contents, self._extensions, self._empty)

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[tuple[str, dict[str, Any]]]:
        """Return a batch of samples; each shard is looked up once, and what is missing is fetched together."""
        positions = np.array([self.position(index) for index in indices], np.int64)
        rows = self.shard_of(positions)
        wanted = list(dict.fromkeys(rows.tolist()))
        opened = dict(zip(wanted, self._shards.open_many(wanted), strict=True))
        numbers = positions - self._starts[rows]
        samples = (
            self._shards.sample(opened[row], number)
            for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)
        )
        return [(name, AISShardReader.ZeroDict(content, self._extensions, self._empty)) for name, content in samples]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def position(self, index: SupportsIndex) -> int:
        """Return an index as one that counts from the start; IndexError if it is out of range."""
        place, count = operator.index(index), len(self)
        if not -count <= place < count:
            raise IndexError(f"<{type(self).__name__}> index {place} is out of range for {count} samples")
        return place + count if place < 0 else place

    def shard_of(self, positions: Order) -> Order:
        """Return the row of the listing that each sample's shard is in."""
        return np.searchsorted(self._starts, positions, side="right") - 1

    def sample_sizes(self) -> Order:
        """Return the bytes of each sample; made when asked for."""
        known = (self._shards.members.get(row) for row in range(len(self.manifest)))
        return np.array([size for index in known if index is not None for size in index.sizes()], np.int64)
