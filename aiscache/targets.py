"""`Target`: a dataset as rows of listings: what the indices of a sampler mean to the pool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from aiscache.cache import Cache
from aiscache.datasets.base_map import AISBaseMapDataset
from aiscache.datasets.listed import Listed
from aiscache.datasets.shard_dataset import AISShardDataset
from aiscache.prefetch import Job
from aiscache.prefetch.job import NOT_OURS, Rows


class Target(ABC):
    """Which datasets of ours a dataset is made of, and which row of their listings an index means."""

    parts: list[Listed]

    @classmethod
    def of(cls, dataset: Any) -> Target | None:
        """Return the target, None for a dataset that we do not understand."""
        if isinstance(dataset, AISBaseMapDataset):
            return _Objects(dataset)
        if isinstance(dataset, AISShardDataset):
            return _Samples(dataset)
        if isinstance(dataset, Subset):
            inner = cls.of(dataset.dataset)
            return None if inner is None else _Part(inner, np.asarray(dataset.indices, np.int64))
        if isinstance(dataset, ConcatDataset):
            return _Chain([cls.of(each) for each in dataset.datasets], list(map(len, dataset.datasets)))
        return None

    @abstractmethod
    def rows(self, indices: Rows) -> Rows:
        """Return the row of each index, counted through all parts; NOT_OURS for what is none."""

    def job(self, processes: int, connections: int, lookahead_bytes: int) -> Job | None:
        """Return what a pool would do for the target, None if there is nothing for it to do."""
        cache = self.parts[0].cache if self.parts else None
        if (
            cache is None
            or cache.settings.offline
            or cache.store() is None
            or not all(_can_prefetch(part, cache) for part in self.parts)
        ):
            return None
        origins = {cluster: origin for part in self.parts for cluster, origin in part._reader.origins.items()}
        return Job(
            cache=cache,
            manifests=tuple(part.manifest for part in self.parts),
            origins=origins,
            processes=processes,
            connections=connections,
            lookahead_bytes=lookahead_bytes,
        )


def _can_prefetch(part: Listed, cache: Cache) -> bool:
    """Tell whether a part reads through that cache, and has its listing in a file that the pool can open."""
    return part.cache is not None and part.cache.settings == cache.settings and bool(part.manifest.path)


def _wrap(indices: Rows, count: int) -> Rows:
    """Count negative indices from the end; NOT_OURS for what is out of range."""
    wrapped = np.where(indices < 0, indices + count, indices)
    return np.where((wrapped >= 0) & (wrapped < count), wrapped, NOT_OURS)


class _Objects(Target):
    """A dataset of objects: an index is a row."""

    def __init__(self, dataset: AISBaseMapDataset) -> None:
        self.parts = [dataset]
        self._count = len(dataset.manifest)

    def rows(self, indices: Rows) -> Rows:
        return _wrap(indices, self._count)


class _Samples(Target):
    """A dataset of the samples in shards: an index means the shard that has the sample."""

    def __init__(self, dataset: AISShardDataset) -> None:
        self.parts = [dataset]
        self._dataset = dataset

    def rows(self, indices: Rows) -> Rows:
        places = _wrap(indices, len(self._dataset))
        return np.where(places < 0, NOT_OURS, self._dataset.shard_of(places))


class _Part(Target):
    """A `Subset`."""

    def __init__(self, inner: Target, indices: Rows) -> None:
        self.parts = inner.parts
        self._inner = inner
        self._indices = indices

    def rows(self, indices: Rows) -> Rows:
        places = _wrap(indices, len(self._indices))
        if not len(self._indices):
            return places
        return np.where(places < 0, NOT_OURS, self._inner.rows(self._indices[places]))


class _Chain(Target):
    """A `ConcatDataset`; members that we do not understand have no rows."""

    def __init__(self, members: list[Target | None], lengths: list[int]) -> None:
        self.parts = [part for member in members if member is not None for part in member.parts]
        self._members = members
        self._lengths = lengths

    def rows(self, indices: Rows) -> Rows:
        places = _wrap(indices, sum(self._lengths))
        rows = np.full(len(places), NOT_OURS, np.int64)
        first = start = 0
        for member, length in zip(self._members, self._lengths, strict=True):
            ours = np.flatnonzero((places >= first) & (places < first + length))
            if member is not None:
                found = member.rows(places[ours] - first)
                rows[ours] = np.where(found < 0, NOT_OURS, found + start)
                start += sum(len(part.manifest) for part in member.parts)
            first += length
        return rows
