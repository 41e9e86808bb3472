"""Measuring a contender: epochs of the same work, and what the cluster and the cache counted meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiscache.cache import Cache
from aiscache.cli.demo.training import Trainer, make_loader
from aiscache.devserver import DevCluster
from aiscache.stats import CacheStats


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch of one contender took. The cluster's side is counted by the cluster itself."""

    epoch: int
    samples: int
    seconds: float
    loss: float
    gets: int  # requests for an object that reached the cluster
    cluster_bytes: int  # bytes of bodies that the cluster sent
    memory_bytes: int  # bytes that came from the cache's memory
    disk_bytes: int  # bytes that came from the cache's disk
    hit_ratio: float

    @property
    def samples_per_s(self) -> float:
        """Samples per second, over the whole epoch."""
        return self.samples / self.seconds


def run_epochs(
    dataset: Any,
    *,
    cluster: DevCluster,
    cache: Cache | None,
    epochs: int,
    batch_size: int,
    workers: int,
    object_bytes: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[EpochResult]:
    """Train for some epochs and yield each one's result; `on_progress` is told the epoch and the samples so far."""
    trainer = Trainer(object_bytes=object_bytes)
    loader = make_loader(dataset, batch_size=batch_size, workers=workers)
    for epoch in range(1, epochs + 1):
        samples = 0

        def on_batch(count: int, epoch: int = epoch) -> None:
            nonlocal samples
            samples += count
            on_progress(epoch, samples)

        cluster.reset_requests()
        before = CacheStats() if cache is None else cache.stats()
        began = time.perf_counter()
        loss = trainer.epoch(loader, on_batch)
        seconds = time.perf_counter() - began
        did = (CacheStats() if cache is None else cache.stats()) - before
        requests = cluster.requests()
        yield EpochResult(
            epoch=epoch,
            samples=samples,
            seconds=seconds,
            loss=loss,
            gets=requests["GET"],
            cluster_bytes=requests["BYTES"],
            memory_bytes=did.bytes_memory,
            disk_bytes=did.bytes_disk,
            hit_ratio=did.hit_ratio,
        )


def rate(results: Sequence[EpochResult]) -> float:
    """Return samples per second over some epochs together."""
    return sum(result.samples for result in results) / sum(result.seconds for result in results)
