"""`DynamicBatchSampler`: batches limited in bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from aiscache.datasets.sample_sizes import sample_sizes
from aiscache.errors import ConfigError

SATURATION_FACTOR = 0.8

_LOG = logging.getLogger("aiscache")


class DynamicBatchSampler(Sampler):  # type: ignore[misc]
    """Yields batches (lists of indices) of as many samples as fit into `max_batch_size` bytes, in order.

    Batches are those of `aistore.pytorch`, with the same arguments; shuffled ones too, for the same state of torch's
    random numbers. Sizes are those of the listing; no object is made for them. Samples of 0 bytes are left out, with
    one warning in the log. `len()` is the number of batches: of the epoch under way, else of the one to come.

    Arguments:
        data_source: a map-style dataset of ours or of `aistore.pytorch`, a Subset or a ConcatDataset of such.
        max_batch_size: most bytes in a batch.
        drop_last: leave out the last batch unless it has more than `saturation_factor` of `max_batch_size`.
        allow_oversized_samples: yield a sample larger than a batch as one of its own, instead of leaving it out.
        saturation_factor: see `drop_last`.
        shuffle: another random order in each epoch.
    """

    def __init__(
        self,
        data_source: Any,
        max_batch_size: float,
        drop_last: bool = False,
        allow_oversized_samples: bool = False,
        saturation_factor: float = SATURATION_FACTOR,
        shuffle: bool = False,
    ) -> None:
        if not 0 <= saturation_factor <= 1:
            raise ConfigError(f"saturation_factor={saturation_factor!r} must be between 0 and 1")
        if not max_batch_size > 0:
            raise ConfigError(f"max_batch_size={max_batch_size!r} must be more than 0 bytes")
        self._sizes = sample_sizes(data_source)
        self._max_batch_size = max_batch_size
        self._drop_last = drop_last
        self._allow_oversized_samples = allow_oversized_samples
        self._saturation_factor = saturation_factor
        self._shuffle = shuffle
        self._warned = False
        self._current: list[int] | None = None  # the order of the epoch under way, or of the one to come
        self._begun = False
        self._count: int | None = None  # of batches in it

    def __len__(self) -> int:
        if self._current is None:
            self._draw()
        if self._count is None:
            self._count = sum(1 for _ in self._batches(self._current or []))
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        if self._current is None or self._begun:
            self._draw()
        order, self._begun = self._current or [], True
        self._warn()
        yield from self._batches(order)
        if self._current is order:
            self._current, self._begun = None, False

    def _draw(self) -> None:
        self._current, self._begun = self._order(), False
        if self._shuffle:
            self._count = None

    def _order(self) -> list[int]:
        count = len(self._sizes)
        if not self._shuffle:
            return list(range(count))
        order: list[int] = torch.randperm(count).tolist()
        return order[::-1]  # aistore.pytorch takes indices from the end

    def _batches(self, order: list[int]) -> Iterator[list[int]]:
        most, total = self._max_batch_size, 0
        batch: list[int] = []
        for index, size in zip(order, self._sizes[order].tolist(), strict=True):
            if size == 0 or (size > most and not self._allow_oversized_samples):
                continue
            if size > most:
                yield [index]
                continue
            if batch and total + size > most:
                yield batch
                batch, total = [], 0
            batch.append(index)
            total += size
            if total == most:
                yield batch
                batch, total = [], 0
        if batch and (not self._drop_last or total / most > self._saturation_factor):
            yield batch

    def _warn(self) -> None:
        """Tell once how many samples are in no batch."""
        empty = int((self._sizes == 0).sum())
        large = 0 if self._allow_oversized_samples else int((self._sizes > self._max_batch_size).sum())
        if (empty or large) and not self._warned:
            self._warned = True
            _LOG.warning(
                "%d samples of 0 bytes and %d of more than %s bytes (max_batch_size) are in no batch",
                empty,
                large,
                self._max_batch_size,
            )
