"""`PrefetchSampler`: a sampler that tells a pool of prefetchers what it is going to yield, and is their clock."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset, Sampler

from aiscache.datasets.dynamic_sampler import DynamicBatchSampler
from aiscache.errors import ConfigError
from aiscache.prefetch import Epoch, Prefetcher
from aiscache.prefetch.job import Rows, default_connections, default_processes
from aiscache.settings import parse_size
from aiscache.store.runs import noted
from aiscache.targets import Target

LOOKAHEAD = "512MB"

_FIRST = 1024  # positions that are read and told before the first is yielded
_LONGEST = 1 << 16  # positions told at a time
_HORIZON = 1 << 20  # positions that are read ahead of the clock, at most
_PER_PULL = 64

_STATE_VERSION = 1


class PrefetchSampler(Sampler[Any]):  # type: ignore[misc]
    """Yields what `sampler` (a sampler or a batch sampler) yields, and has the cache filled ahead of that.

    Worker processes fetch what is not in the cache of `dataset` (of this package, or `Subset`s and `ConcatDataset`s of
    such), in the order of the sampler, as far ahead as the cache has room; and `lookahead` bytes further, for one read.
    They are started when an object is missing, and end with this sampler. For other datasets, or without a cache, it
    only yields.

    It may be iterated again and again; an iterator of before goes on, but without prefetching. The wrapped sampler is
    read ahead of what is yielded, up to a million indices (an endless one, too). Other attributes are the wrapped
    sampler's: `set_epoch`, `batch_size`, `sampler` ... A `state_dict` holds the wrapped sampler's of when the epoch
    began and how many items were yielded since.

    Arguments:
        sampler, dataset: what is wrapped, and what its indices mean.
        processes: worker processes; by default half of the cores, at most 4.
        connections: requests that each has in flight, by default 32; one process alone has 64.
        lookahead: bytes ("512MB") that they together hold beyond the cache's capacity.

    Use it as `sampler=` or `batch_sampler=` of torch's DataLoader. `aiscache.DataLoader` does so by itself; for loaders
    that others make there is `attach`.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        dataset: Dataset[Any],
        *,
        processes: int | None = None,
        connections: int | None = None,
        lookahead: int | str = LOOKAHEAD,
    ) -> None:
        for name, value in (("processes", processes), ("connections", connections)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value!r} must be at least 1")
        self.wrapped = sampler
        self.dataset = dataset
        self.outstanding: int | None = None  # how many items a loader works on at a time, where that is known
        self._processes = processes or default_processes()
        self._connections = connections or default_connections(self._processes)
        self._lookahead_bytes = parse_size(lookahead, name="lookahead")
        self._prefetcher: Prefetcher | None = None
        self._skip = 0
        self._began: Any = None
        self._yielded = 0

    @classmethod
    def attach(cls, loader: Any, **options: Any) -> Any:
        """Return a loader that somebody else made, its batch sampler (without batches: its sampler) wrapped in place.

        For what builds torch's loader anew from the one that it is given, as `accelerate.Accelerator.prepare` does:
        the order that is prefetched is then the one of this rank. Options are those of the constructor. A loader that
        prefetches already, or of an iterable dataset, is returned as it is.
        """
        inner = getattr(loader, "base_dataloader", loader)  # where Accelerate's loaders have torch's
        iterable = isinstance(inner.dataset, IterableDataset)
        if iterable or isinstance(inner._index_sampler, cls):
            return loader
        sampler = cls(inner._index_sampler, inner.dataset, **options)
        sampler.outstanding = 1 + max(1, inner.num_workers * (inner.prefetch_factor or 0))
        # Past torch's guard against changes, which is there for the sake of those that would change the order.
        vars(inner)["sampler" if inner.batch_sampler is None else "batch_sampler"] = sampler
        return loader

    @property
    def prefetcher(self) -> Prefetcher | None:
        """The pool's handle, with `stats()` and `close()`; None before the first epoch, and where there is none."""
        return self._prefetcher

    def __iter__(self) -> Iterator[Any]:
        """Yield the epoch's items. The order is told to the pool before the first."""
        skip, self._skip, self._yielded = self._skip, 0, self._skip
        items = islice(self._begin(), skip, None)
        target = Target.of(self.dataset)
        job = None if target is None else target.job(self._processes, self._connections, self._lookahead_bytes)
        if target is None or job is None:
            ahead: Iterator[Any] = items
        else:
            if self._prefetcher is None or self._prefetcher.job.cache is not job.cache:
                self._prefetcher = Prefetcher(job)
            ahead = _Ahead(items, self._prefetcher.begin(), target, outstanding=self.outstanding).items()
        for item in ahead:
            self._yielded += 1
            yield item

    def _begin(self) -> Iterator[Any]:
        """Begin the wrapped sampler's epoch, and note its state from which that begins.

        Of a sampler that counts epochs that is the one before it begins. One that knows its place in an epoch may have
        left one in the middle: its state is then of that, until it has begun the next.
        """
        if isinstance(self.wrapped, DynamicBatchSampler):
            items = iter(self.wrapped)
            self._began = self.wrapped.state_dict()
            return items
        if hasattr(self.wrapped, "state_dict"):
            self._began = self.wrapped.state_dict()
        return iter(self.wrapped)

    def __len__(self) -> int:
        return len(self.wrapped)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name == "wrapped" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        value = getattr(self.wrapped, name)
        return {"state_dict": self._state, "load_state_dict": self._load_state}.get(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prefetcher": None}

    def __repr__(self) -> str:
        return f"PrefetchSampler({self.wrapped!r})"

    def _state(self) -> dict[str, Any]:
        began = self.wrapped.state_dict() if self._began is None else self._began  # type: ignore[attr-defined]
        return {"version": _STATE_VERSION, "sampler": began, "yielded": self._yielded}

    def _load_state(self, state: dict[str, Any]) -> None:
        if state.get("version") != _STATE_VERSION:
            raise ConfigError(f"state {state!r} is not of a PrefetchSampler of version {_STATE_VERSION}")
        self.wrapped.load_state_dict(state["sampler"])  # type: ignore[attr-defined]
        self._began = state["sampler"]
        self._skip = self._yielded = state["yielded"]


class _Ahead:
    """Reads a sampler ahead of what is yielded, and tells the epoch what comes and what was yielded.

    What the sampler raises is raised where it would have been without us: behind the items that came before.
    """

    def __init__(self, items: Iterator[Any], epoch: Epoch, target: Target, *, outstanding: int | None) -> None:
        self._items = items
        self._epoch = epoch
        self._target = target
        self._cache = target.parts[0].cache
        self._read: deque[tuple[Any, int]] = deque()  # (item, how many indices it has), not yielded yet
        self._indices: list[Any] = []  # read, and not told yet
        self._positions = 0  # read
        self._clock = 0  # yielded
        self._consumed: int | None = None  # that the loop is done with, if that can be told
        self._block = _FIRST
        self._ended = False
        self._error: Exception | None = None
        # The clock before each of the last items: the oldest is what a loader is done with when it asks for the next.
        self._clocks: deque[int] | None = None if outstanding is None else deque([0], maxlen=outstanding + 1)

    def items(self) -> Iterator[Any]:
        """Yield the sampler's items; what the cache does meanwhile is noted, for `aiscache report`."""
        with noted(None if self._cache is None else self._cache.store(), kind="epoch") as doing:
            for item in self._in_order():
                doing.samples = self._clock if self._clocks is None else self._consumed or 0
                yield item
            doing.complete = True

    def _in_order(self) -> Iterator[Any]:
        self._look(_FIRST)
        self._tell(at_least=1)
        while self._read:
            item, count = self._read.popleft()
            self._clock += count
            if self._clocks is not None:
                self._clocks.append(self._clock)
                full = len(self._clocks) == self._clocks.maxlen
                self._consumed = self._clocks[0] if full else 0
            self._epoch.advance(self._clock, consumed=self._consumed)
            self._let_go()
            yield item
            self._look(max(_PER_PULL, 4 * count))
            self._tell(at_least=1 if self._ended else self._block)
        if self._error is not None:
            raise self._error

    def _let_go(self) -> None:
        """Unmap, in this process, what was held for one read: the pool waits for the space."""
        store = None if self._cache is None else self._cache.store()
        if store is not None:
            store.trim_staged()

    def _look(self, count: int) -> None:
        """Read so many positions more, up to the horizon; always one item, if there is one and none is at hand."""
        until = min(self._positions + count, self._clock + _HORIZON)
        while not self._ended and (self._positions < until or not self._read):
            try:
                item = next(self._items)
            except StopIteration:
                self._ended = True
                return
            except Exception as error:
                self._ended, self._error = True, error
                return
            before = len(self._indices)
            if isinstance(item, list | tuple):
                self._indices.extend(item)
            elif getattr(item, "ndim", 0) == 1:  # an array or a tensor
                self._indices.extend(item.tolist())
            else:
                self._indices.append(item)
            self._positions += len(self._indices) - before
            self._read.append((item, len(self._indices) - before))

    def _tell(self, *, at_least: int) -> None:
        """Tell the epoch what was read, in growing blocks."""
        while len(self._indices) >= at_least:
            block = self._indices[:_LONGEST]
            if not block or not self._epoch.publish(self._target.rows(_as_indices(block))):
                return
            del self._indices[:_LONGEST]
            self._block = min(2 * self._block, _LONGEST)


def _as_indices(values: list[Any]) -> Rows:
    """Return indices as numbers; what is none (a key of a user's own) becomes one that is out of range."""
    try:
        return np.fromiter(map(operator.index, values), np.int64, len(values))
    except (TypeError, OverflowError):
        return np.array([_as_index(value) for value in values], np.int64)


def _as_index(value: Any) -> int:
    try:
        index = operator.index(value)
    except TypeError:
        return _OUT_OF_RANGE
    return index if abs(index) < -_OUT_OF_RANGE else _OUT_OF_RANGE


_OUT_OF_RANGE = -(1 << 62)
