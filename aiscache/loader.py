"""`DataLoader`: torch's, with the cache filled ahead of it."""

from __future__ import annotations

from typing import Any

from torch.utils import data

from aiscache.prefetch import Prefetcher
from aiscache.samplers import LOOKAHEAD, PrefetchSampler
from aiscache.worker_init import WorkerInit


class DataLoader(data.DataLoader[Any]):  # type: ignore[misc]
    """`torch.utils.data.DataLoader`, with the same arguments and defaults, that prefetches into the cache.

    What it reads next is known from its sampler: a pool of processes fetches what is not in the dataset's cache, ahead
    of the DataLoader's own workers, which find it there. `sampler` and `batch_sampler` stay what they are without it.
    The workers end with their trainer, however that ends.

    Arguments, besides those of torch:
        prefetch_processes: processes that fetch; by default half of the cores, at most 4.
        prefetch_connections: requests that each has in flight, by default 32.
        lookahead: bytes ("512MB") to fetch ahead beyond what the cache has room for.
    """

    worker_init_fn: Any

    def __init__(
        self,
        dataset: Any,
        *args: Any,
        prefetch_processes: int | None = None,
        prefetch_connections: int | None = None,
        lookahead: int | str = LOOKAHEAD,
        **kwargs: Any,
    ) -> None:
        self.prefetch_processes = prefetch_processes
        self.prefetch_connections = prefetch_connections
        self.lookahead = lookahead
        self._prefetch_sampler: PrefetchSampler | None = None
        super().__init__(dataset, *args, **kwargs)
        self._index_sampler  # noqa: B018  (a bad argument is told here)

    def _get_iterator(self) -> Any:
        """Start torch's iterator with workers that end when we do; the attribute stays what the user gave."""
        given = self.worker_init_fn
        self.worker_init_fn = WorkerInit(given)
        try:
            return super()._get_iterator()
        finally:
            self.worker_init_fn = given

    @property
    def prefetcher(self) -> Prefetcher | None:
        """The handle of the prefetching pool, with `stats()`; None before the first epoch, and where there is none."""
        return None if self._prefetch_sampler is None else self._prefetch_sampler.prefetcher

    @property
    def _index_sampler(self) -> Any:
        """What torch takes the order from: wrapped here, so that nobody who looks at `sampler` finds it changed.

        Lightning and Accelerate tell by the sampler's type how to shuffle and to split by rank.
        """
        wrapped = super()._index_sampler
        if self._dataset_kind != data.dataloader._DatasetKind.Map or isinstance(wrapped, PrefetchSampler):
            return wrapped
        if self._prefetch_sampler is None or self._prefetch_sampler.wrapped is not wrapped:
            self._prefetch_sampler = PrefetchSampler(
                wrapped,
                self.dataset,
                processes=self.prefetch_processes,
                connections=self.prefetch_connections,
                lookahead=self.lookahead,
            )
            self._prefetch_sampler.outstanding = max(1, self.num_workers * (self.prefetch_factor or 0))
        return self._prefetch_sampler
