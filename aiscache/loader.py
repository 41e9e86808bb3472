"""`DataLoader`: torch's, with the cache filled ahead of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.multiprocessing
from torch.utils import data

from aiscache.contexts import CONTEXTS
from aiscache.prefetch import Prefetcher
from aiscache.samplers import LOOKAHEAD, PrefetchSampler
from aiscache.worker_init import WorkerInit
from aiscache.worker_process import ForkProcess


class DataLoader(data.DataLoader[Any]):  # type: ignore[misc]
    """`torch.utils.data.DataLoader`, with the same arguments and defaults, that prefetches into the cache.

    What it reads next is known from its sampler: a pool of processes fetches what is not in the dataset's cache, ahead
    of the DataLoader's own workers, which find it there. `sampler` and `batch_sampler` stay what they are without it.
    The workers end with their trainer, however that ends.

    Arguments, besides those of torch:
        prefetch_processes: processes that fetch; by default half of the cores, at most 4.
        prefetch_connections: requests that each has in flight, by default 32; one process alone has 64.
        lookahead: bytes ("512MB") to fetch ahead beyond what the cache has room for.
    """

    worker_init_fn: Any
    multiprocessing_context: Any

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
        """Start torch's iterator with workers that end when we do; the attributes stay what the user gave."""
        if self.num_workers == 0:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        init_fn, context = self.worker_init_fn, self.multiprocessing_context
        self.worker_init_fn = WorkerInit(init_fn)
        self.multiprocessing_context = CONTEXTS[(context or torch.multiprocessing).get_start_method()]()
        try:
            return _Iterator(self)
        finally:
            self.worker_init_fn, self.multiprocessing_context = init_fn, context

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


class _Iterator(data.dataloader._MultiProcessingDataLoaderIter):  # type: ignore[misc]
    """torch's, which leaves no worker behind if it is interrupted while it starts them.

    The error keeps the half-made iterator, and that would keep workers which were not told, for as long as a notebook
    keeps the error.
    """

    _workers: Sequence[Any] = ()
    _shutdown = True

    def __init__(self, loader: DataLoader) -> None:
        try:
            super().__init__(loader)
        except BaseException:
            for worker in self._workers:
                if not isinstance(worker, ForkProcess):  # they import torch, for seconds, and have begun nothing
                    worker.kill()
            self._shutdown = not self._workers
            self._workers_status = [True] * len(self._workers)  # torch sets it when all have started
            self._shutdown_workers()
            raise
