"""Which samples this process reads: the order of an epoch, split by rank and by DataLoader worker."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data import get_worker_info

from aiscache.errors import ConfigError

Order = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a data set is ours: every `parts`-th sample of the order, from the `part`-th on."""

    rank: int
    world_size: int
    worker: int
    workers: int

    @property
    def part(self) -> int:
        """Our place among all workers of all ranks."""
        return self.rank * self.workers + self.worker

    @property
    def parts(self) -> int:
        """How many workers there are in all ranks together."""
        return self.world_size * self.workers

    def among(self, workers: int) -> list[Share]:
        """Return the shares of so many workers of our rank."""
        return [replace(self, worker=worker, workers=workers) for worker in range(workers)]

    def of(self, order: Order) -> Order:
        """Return our part of an order: first by rank, then by worker: a rank's workers share the rank's part."""
        return order[self.rank :: self.world_size][self.worker :: self.workers]


def our_share(*, rank: int | None, world_size: int | None) -> Share:
    """Return this process's share: rank and world size as given, else of torch.distributed, else of RANK/WORLD_SIZE."""
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank={rank!r} and world_size={world_size!r} go together: give both, or neither")
    if rank is None or world_size is None:
        rank, world_size = _distributed()
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} must be from 0 to world_size - 1 = {world_size - 1}")
    info = get_worker_info()
    return Share(rank, world_size, info.id if info else 0, info.num_workers if info else 1)


def _distributed() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world_size is None:
        return 0, 1
    try:
        return int(rank), int(world_size)
    except ValueError:
        raise ConfigError(f"RANK={rank!r} and WORLD_SIZE={world_size!r} in the environment must be numbers") from None


def epoch_order(count: int, *, shuffle: bool, seed: int, epoch: int) -> Order:
    """Return the order of an epoch, the same in every process: as listed, or shuffled by seed and epoch."""
    if not shuffle:
        return np.arange(count)
    return np.random.default_rng((seed, epoch)).permutation(count)


EQUALIZE = ("drop", "pad", None)


def evened(order: Order, *, parts: int, equalize: str | None) -> Order:
    """Return an order that divides evenly: cut at its end ("drop"), or gone on with from its start ("pad")."""
    if equalize is None or not len(order):
        return order
    length = even_length(len(order), parts=parts, equalize=equalize) * parts
    return np.resize(order, length)


def even_length(count: int, *, parts: int, equalize: str) -> int:
    """Return how many of `count` samples each of `parts` gets."""
    return count // parts if equalize == "drop" else -(-count // parts)
