"""`DynamicBatchSampler`: batches limited in bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Sampler

from aiscache.datasets.random_state import as_text, generator_from
from aiscache.datasets.sample_sizes import sample_sizes
from aiscache.errors import ConfigError

SATURATION_FACTOR = 0.8
_STATE_VERSION = 1

_LOG = logging.getLogger("aiscache")


@dataclass
class _Epoch:
    """One pass over the samples. `random` is where torch's random numbers stood when its order was drawn."""

    random: str | None = None
    yielded: int = 0
    begun: bool = False
    order: list[int] = field(default_factory=list)
    length: int | None = None


class DynamicBatchSampler(Sampler):  # type: ignore[misc]
    """Yields batches (lists of indices) of as many samples as fit into `max_batch_size` bytes, in order.

    Batches are those of `aistore.pytorch`, with the same arguments; shuffled ones too, for the same state of torch's
    random numbers. Sizes are those of the listing; no object is made for them. Samples of 0 bytes are left out, with
    one warning in the log. `len()` is the number of batches: of the epoch under way, else of the one to come. A
    `state_dict` tells where in it a training loop is.

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
        self._epoch = _Epoch()  # the one under way, or the one to come
        self._begun_last = self._epoch  # the loader may have all of it while its training loop is in the middle

    def __len__(self) -> int:
        epoch = self._epoch
        self._draw(epoch)
        if epoch.length is None:
            epoch.length = sum(1 for _ in self._batches(epoch.order))
        return epoch.length

    def __iter__(self) -> Iterator[list[int]]:
        if self._epoch.begun:
            self._epoch = self._next_epoch()
        return self._rest(self._epoch)

    def state_dict(self, *, batches: int | None = None) -> dict[str, Any]:
        """Return the order of the epoch, and how many of its batches were yielded; fit for JSON.

        A DataLoader with workers, or with a PrefetchSampler, takes batches ahead of the training loop: say then how
        many the loop has taken of its epoch. (torchdata's StatefulDataLoader knows by itself.) For a shuffled order the
        state has what torch's random numbers began from, 4 kB of text.
        """
        epoch = self._epoch if batches is None else self._begun_last
        self._draw(epoch)
        return {
            "version": _STATE_VERSION,
            "samples": len(self._sizes),
            "max_batch_size": self._max_batch_size,
            "random": epoch.random,
            "batches": epoch.yielded if batches is None else batches,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration go on where `state_dict` was taken, with any number of workers.

        Raises ConfigError for a state of another version, or of another number of samples or bytes per batch.
        """
        ours = {"version": _STATE_VERSION, "samples": len(self._sizes), "max_batch_size": self._max_batch_size}
        theirs = {name: state.get(name) for name in ours}
        if theirs != ours or (state.get("random") is not None) != self._shuffle or "batches" not in state:
            raise ConfigError(
                f"a state of {theirs} does not fit a DynamicBatchSampler of {ours}, shuffle={self._shuffle}"
            )
        self._epoch = self._begun_last = _Epoch(random=state["random"], yielded=int(state["batches"]))

    def _rest(self, epoch: _Epoch) -> Iterator[list[int]]:
        """Yield the batches of an epoch that are left; of a new one, if another iterator has begun with it."""
        if epoch.begun:
            epoch = self._epoch = self._next_epoch()
        self._draw(epoch)
        self._begun_last, epoch.begun = epoch, True
        self._warn()
        for batch in islice(self._batches(epoch.order), epoch.yielded, None):
            epoch.yielded += 1
            yield batch
        if self._epoch is epoch:
            self._epoch = self._next_epoch()

    def _next_epoch(self) -> _Epoch:
        """Return one that has not begun; in the order of the listing all are alike."""
        return _Epoch() if self._shuffle else _Epoch(order=self._epoch.order, length=self._epoch.length)

    def _draw(self, epoch: _Epoch) -> None:
        """Give an epoch its order, if it has none yet."""
        count = len(self._sizes)
        if epoch.order or not count:
            return
        if not self._shuffle:
            epoch.order = list(range(count))
            return
        if epoch.random is None:
            epoch.random = as_text(torch.get_rng_state())
            order: list[int] = torch.randperm(count).tolist()
        else:
            order = torch.randperm(count, generator=generator_from(epoch.random)).tolist()
        epoch.order = order[::-1]  # aistore.pytorch takes indices from the end

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
