"""`AISBaseIterDataset`: extend this for iterable datasets of your own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import IterableDataset

from aiscache.datasets.listed import NO_PREFIXES, Listed, PrefixMap
from aiscache.datasets.position import Position
from aiscache.datasets.readahead import read_ahead
from aiscache.datasets.split import EQUALIZE, Order, Share, epoch_order, even_length, evened, our_share
from aiscache.errors import ConfigError
from aiscache.manifest.sources import bucket_name
from aiscache.origin import BucketName
from aiscache.view import View

Item = TypeVar("Item")


class AISBaseIterDataset(Listed, IterableDataset, ABC):  # type: ignore[misc]
    """An iterable dataset over the objects of AIS sources, read through the cache.

    A subclass overrides `__iter__`. `self.read_ahead()` gives the rows of the listing that this process is to read, in
    order, and their bytes; `self.indices()` gives the rows alone; `self.manifest.name(row)` is a name. Each row of an
    epoch is read by one worker of one rank. To be gone on with in the middle of an epoch, yield one sample per row.

    Further arguments are those of `AISBaseMapDataset`.

    Arguments:
        partition_sources_by_worker: give whole sources to workers, instead of every n-th object. The listing is shared
            by all workers in any case.
        shuffle, seed: read each epoch in another random order, the same in every process that has the same seed.
        rank, world_size: which part of the data this process reads; by default what torch.distributed says, else the
            environment variables RANK and WORLD_SIZE.
        equalize: "drop" leaves out the last few samples of an epoch so that all ranks yield equally many, "pad" yields
            the first few again; None (the default) neither: some ranks yield one more than others.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: PrefixMap | None = None,
        partition_sources_by_worker: bool = False,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        equalize: str | None = None,
        **options: Any,
    ) -> None:
        our_share(rank=rank, world_size=world_size)  # a bad pair is told here, not in a worker
        if equalize not in EQUALIZE:
            raise ConfigError(f"equalize={equalize!r} must be one of {', '.join(map(repr, EQUALIZE))}")
        super().__init__(ais_source_list, prefix_map or NO_PREFIXES, **options)
        self._equalize = equalize
        self._partition_sources_by_worker = partition_sources_by_worker
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._position = Position()
        self._obj_iterator: Iterator[Any] | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Return an iterator over this process's samples of one epoch, which begins with this call."""

    def __len__(self) -> int:
        """Return the number of samples that all workers of this rank yield in an epoch; no request."""
        share = our_share(rank=self._rank, world_size=self._world_size)
        if self._equalize is not None:
            return even_length(len(self.manifest), parts=share.world_size, equalize=self._equalize)
        return len(range(share.rank, len(self.manifest), share.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next, in workers that persist, too; call it before each epoch.

        After `load_state_dict` it leaves the place alone if it names the same epoch.
        """
        self._position.set_epoch(epoch)

    def indices(self) -> Iterator[int]:
        """Yield the rows that this process reads in this epoch, in order; those already read, after a resume, not."""
        return self._counted(iter(self._begin()[1].tolist()))

    def read_ahead(self) -> Iterator[tuple[int, View]]:
        """Yield each of the rows of `indices()` with its bytes; while some are consumed, the next are fetched."""

        def read(rows: Sequence[int]) -> list[tuple[int, View]]:
            return list(zip(rows, self.read_many(rows), strict=True))

        return self._counted(read_ahead(iter(self._begin()[1].tolist()), read))

    def state_dict(self, loader: Any = None, *, batches: int | None = None) -> dict[str, Any]:
        """Return where the epoch is, for `load_state_dict`: a few numbers, fit for JSON.

        Without workers, and inside of a worker (as torchdata's StatefulDataLoader asks), it is known how much was
        yielded. The workers of torch's own DataLoader read ahead of the training loop: give the loader, and how many of
        its batches the loop has taken in this epoch, counting those before it was last gone on with.

        Raises ConfigError if the loader is needed, or if an epoch does not have so many batches.
        """
        return self._position.state(loader, batches, of=self._identity(), lengths=self._lengths)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next iteration go on where `state_dict` was taken, with the same samples in the same order.

        Load it before the DataLoader is iterated. Its batch size, its number of workers (0 is as good as 1) and the
        number of ranks must be the same. Raises ConfigError for a state of another version, seed or number of ranks.
        """
        self._position.load(state, of=self._identity())

    def _identity(self) -> dict[str, Any]:
        return {"seed": self._seed, "ranks": self._share().world_size}

    def _begin(self) -> tuple[Share, Order]:
        """Begin an epoch, or go on in one: return whose share this process reads, and the rows of it that are left."""
        share, passed = self._position.begin(self._share())
        return share, self._rows(share)[passed:]

    def _counted(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield items, one per row of this process's, each counted when it is handed over."""
        position = self._position
        for item in items:
            position.yielded += 1
            yield item

    def _lengths(self, workers: int) -> list[int]:
        """Return how many samples each of so many workers of this rank yields in this epoch."""
        return [len(self._rows(share)) for share in self._share().among(workers)]

    def _share(self) -> Share:
        return our_share(rank=self._rank, world_size=self._world_size)

    def _order(self) -> Order:
        """Return all rows in this epoch's order."""
        return epoch_order(len(self.manifest), shuffle=self._shuffle, seed=self._seed, epoch=self._position.epoch)

    def _rows(self, share: Share) -> Order:
        """Return the rows of a share, in this epoch's order."""
        order, ranks = self._order(), share.world_size
        if not self._partition_sources_by_worker or share.workers == 1:
            return share.of(evened(order, parts=ranks, equalize=self._equalize))
        ours: Order = order[self.manifest.source_indices[order] % share.workers == share.worker]
        return evened(ours, parts=ranks, equalize=self._equalize)[share.rank :: ranks]

    # ---- what subclasses written for `aistore.pytorch` call

    def _create_objects_iter(self, sources: Sequence[Any] | None = None) -> Iterable[Any]:
        """Yield SDK objects of all rows, or of the rows of some of the sources that the dataset was made of."""
        if sources is None:
            return self._objects(range(len(self.manifest)))
        places = {bucket_name(getattr(source, "bck", source)) for source in sources}
        wanted = [
            number
            for number, source in enumerate(self.manifest.sources)
            if BucketName(name=source.bucket, provider=source.provider, namespace=source.namespace) in places
        ]
        return self._objects(np.flatnonzero(np.isin(self.manifest.source_indices, wanted)).tolist())

    def _reset_iterator(self) -> None:
        """Set `_obj_iterator` to the SDK objects of this process's share."""
        self._obj_iterator = iter(self._objects(self.indices()))

    def _get_worker_iter_info(self) -> tuple[Iterator[Any], str]:
        """Return the SDK objects of this process's share, and its name for a progress bar."""
        if self._obj_iterator is None:
            self._reset_iterator()
        share = self._share()
        name = f" (Worker {share.worker})" if share.workers > 1 else ""
        return self._obj_iterator, name  # type: ignore[return-value]
