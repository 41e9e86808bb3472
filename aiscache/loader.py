"""`DataLoader`: torch's, with the cache filled ahead of it."""

from __future__ import annotations

import weakref
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

    def __iter__(self) -> Any:
        """Begin an epoch: with other workers, where those that were kept for it have ended, as they do at Ctrl-C."""
        kept = self._iterator
        try:
            if not isinstance(kept, _Iterator) or kept.is_whole():
                return super().__iter__()
        except RuntimeError:  # they were about to end
            if not isinstance(kept, _Iterator) or kept.is_whole():
                raise
        kept.end()
        return super().__iter__()

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
    """torch's, which leaves no worker behind if it is interrupted while it starts them, or waits for them.

    The error keeps the iterator, and that would keep workers which were not told, for as long as a notebook keeps the
    error.
    """

    _workers: Sequence[Any] = ()
    _shutdown = True
    _worker_pids_set = False

    def __init__(self, loader: DataLoader) -> None:
        self._loader = weakref.ref(loader)
        try:
            super().__init__(loader)
        except BaseException:
            self._shutdown = not self._workers
            self._workers_status = [True] * len(self._workers)  # torch sets it when all have started
            self.end()
            raise

    def _next_data(self) -> Any:
        try:
            return super()._next_data()
        except KeyboardInterrupt:
            self.end()
            raise

    def is_whole(self) -> bool:
        """Return whether all workers are there."""
        return all(worker.is_alive() for worker in self._workers)

    def end(self) -> None:
        """End the workers; a loader that has kept them for its next epoch starts others then."""
        if self._worker_pids_set:  # else their death is an error
            data._utils.signal_handling._remove_worker_pids(id(self))
            self._worker_pids_set = False
        for worker in self._workers:
            if not isinstance(worker, ForkProcess):  # it may be importing torch, for seconds
                worker.kill()
        self._shutdown_workers()
        loader = self._loader()
        if loader is not None and loader._iterator is self:
            loader._iterator = None
