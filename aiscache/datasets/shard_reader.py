"""`AISShardReader`: a stream of the samples of WebDataset shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from aiscache.counting import counting
from aiscache.datasets.base_iter import AISBaseIterDataset
from aiscache.datasets.progress import with_progress
from aiscache.datasets.sample_counts import listed_counts
from aiscache.datasets.shards import OpenShard, Shards
from aiscache.datasets.shuffle_buffer import SHUFFLE_BUFFER, chance_of, mixed
from aiscache.datasets.split import Order, Share, even_length
from aiscache.errors import ConfigError
from aiscache.view import own_view

Part = tuple[int, int, int | None]
"""Samples of one shard: its row, the first one and the one behind the last (None: all)."""


class AISShardReader(AISBaseIterDataset):
    """An iterable dataset of the samples in tar shards: yields tuples of basename and contents by extension.

    Shards are objects of the cache: each is fetched once per machine, the next ones while one is consumed, and members
    are cut out of the mapped segment. Archives may be plain or compressed (gzip, bzip2, xz; zstandard where Python has
    it); compressed ones are decompressed in each process that reads them. Basenames and extensions are those of
    `aistore.pytorch`; unlike there, files of different folders with one basename are different samples. Of links,
    directories and files without an extension there are no samples.

    The arguments are those of `AISBaseIterDataset`; the first five may be given by position, as in `aistore.pytorch`.
    Whole shards go to ranks and workers. `shuffle` reads the shards in random order, and takes samples from a buffer
    of `shuffle_buffer` at random. With `equalize`, each rank gets the same number of samples, and each of its workers
    (as near as can be): ranges of the epoch's samples, whose ends may lie within a shard. To go on in the middle of an
    epoch, the shards before are opened again, and `state_dict(loader, batches=n)` costs what `len()` costs.

    Raises ShardError, with the shard's URL and the offset, for an object that is no whole archive.
    """

    class ZeroDict(dict[str, Any]):
        """Contents by extension, with `empty` for all of `keys` that a sample does not have, so that it collates."""

        def __init__(self, dict: Any, keys: Iterable[str], empty: Any = b"") -> None:
            super().__init__(dict)
            for key in keys:
                if key not in self:
                    self[key] = empty

    def __init__(
        self,
        bucket_list: Any,
        prefix_map: Any = None,
        etl_name: str | None = None,
        show_progress: bool = False,
        partition_sources_by_worker: bool = False,
        *,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        **options: Any,
    ) -> None:
        if options.get("equalize") and partition_sources_by_worker:
            raise ConfigError("equalize and partition_sources_by_worker exclude each other: it divides by samples")
        super().__init__(
            bucket_list,
            prefix_map,
            partition_sources_by_worker,
            etl_name=etl_name,
            show_progress=show_progress,
            **options,
        )
        self._shuffle_buffer = shuffle_buffer
        self._shards = Shards(self._reader, self._convert)
        self._observed_keys: dict[str, None] = {}
        self._empty = b"" if self._content == "bytes" else own_view(b"")
        self._listed_counts: Order | None = None
        if self._equalize is not None:
            self._counts()  # known to the workers then

    def __len__(self) -> int:
        """Return the number of samples that all workers of this rank yield in an epoch.

        Before the shards were read once on this machine the cluster is asked for their members: one request per 10,000.
        """
        counts, share = self._counts(), self._share()
        if self._equalize is not None:
            return even_length(int(counts.sum()), parts=share.world_size, equalize=self._equalize)
        return int(counts[self._order()[share.rank :: share.world_size]].sum())

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        share, passed = self._position.begin(self._share())
        return self._finished(islice(self._arranged(self._parts(share), share), passed, None))

    def _finished(self, items: Iterator[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Make samples of what is in the order in which they are to be yielded."""
        for item in self._counted(items):
            shard, sample = item
            basename, contents = self._shards.sample(shard, sample) if isinstance(shard, OpenShard) else item
            yield basename, self.ZeroDict(contents, self._observed_keys, self._empty)
        self._shards.save()

    def _arranged(self, parts: list[Part], share: Share) -> Iterator[Any]:
        """Yield (shard, number of the sample in it), or samples, in the order in which they are to be yielded."""
        opened: Iterator[tuple[Part, OpenShard]] = zip(
            parts, self._shards.stream(iter([row for row, _, _ in parts])), strict=True
        )
        if self._show_progress:
            title = type(self).__name__
            opened = with_progress(opened, total=len(parts), title=title, worker=share.worker, workers=share.workers)
        samples = self._numbered(opened)
        if not self._shuffle or self._shuffle_buffer <= 1:
            return samples
        chance = chance_of(share, seed=self._seed, epoch=self._position.epoch)
        return mixed(map(self._kept, samples), size=self._shuffle_buffer, chance=chance)

    def _numbered(self, opened: Iterable[tuple[Part, OpenShard]]) -> Iterator[tuple[OpenShard, int]]:
        for (_, start, stop), shard in opened:
            self._observed_keys.update(dict.fromkeys(shard.samples.extensions))
            for number in range(len(shard.samples))[start:stop]:
                yield shard, number

    def _kept(self, item: tuple[OpenShard, int]) -> Any:
        """Return what a buffer holds of a sample: where it is, or a copy if it is not in the cache."""
        shard, number = item
        return item if shard.whole.in_place else self._shards.copied_sample(shard, number)

    def _parts(self, share: Share) -> list[Part]:
        """Return the samples of a share: whole shards, or ranges of the epoch's samples if they are to be equal."""
        if self._equalize is None:
            return [(row, 0, None) for row in self._rows(share).tolist()]
        order, counts = self._order(), self._counts()
        ours = even_length(int(counts.sum()), parts=share.world_size, equalize=self._equalize)
        shares = [len(range(worker, ours, share.workers)) for worker in range(share.workers)]
        first = share.rank * ours + sum(shares[: share.worker])
        return list(_ranges(order, counts[order], first=first, length=shares[share.worker]))

    def _lengths(self, workers: int) -> list[int]:
        counts = self._counts()
        parts = [self._parts(share) for share in self._share().among(workers)]
        return [sum(len(range(int(counts[row]))[first:end]) for row, first, end in of_one) for of_one in parts]

    def _counts(self) -> Order:
        """Return the number of samples of each shard."""
        counts = self._shards.members.counts()
        if not self._shards.members.missing():
            return self._shards.members.counts()
        offline = self.cache is not None and self.cache.settings.offline
        if self.manifest.etl == "" and self._listed_counts is None and not offline:
            with counting("listing shards", "shards", total=len(counts), show=self._show_progress) as progress:
                self._listed_counts = listed_counts(self.manifest, origins=self._reader.origins, progress=progress)
        if self._listed_counts is not None:
            counts = np.where(counts < 0, self._listed_counts, counts)
            if (counts > 0).all():
                return counts
        self._shards.complete(
            show_progress=self._show_progress
        )  # transformed, or of a kind that the cluster does not look into
        return self._shards.members.counts()


def _ranges(order: Order, counts: Order, *, first: int, length: int) -> Iterator[Part]:
    """Yield `length` samples from the `first` on, of shards in an order, going on at its start past its end."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    while length:
        first %= starts[-1]
        place = int(np.searchsorted(starts, first, side="right")) - 1
        begin = int(first - starts[place])
        taken = min(length, int(counts[place]) - begin)
        yield int(order[place]), begin, begin + taken
        first, length = first + taken, length - taken
