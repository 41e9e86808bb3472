"""Epochs through torch's DataLoader, and single reads."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash

from benchmarks.contenders import Contender, Place
from benchmarks.usage import all_pss_bytes, cpu_s, disk_usage_bytes
from benchmarks.workloads import BATCH


def payload(content: Any) -> Any:
    """Return the bytes of a sample: of a shard's sample those of its one large member."""
    return content["jpg"] if isinstance(content, dict) else content


def collate(batch: list[Any]) -> tuple[list[str], list[Any]]:
    return [name for name, _ in batch], [payload(content) for _, content in batch]


def make_loader(dataset: Any, *, seed: int = 0, workers: int = 2, **options: Any) -> Any:
    """Return torch's loader: shuffled where there is an index, its workers kept for the next epoch."""
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    order: dict[str, Any] = {}
    if not isinstance(dataset, IterableDataset):
        order = {"shuffle": True, "generator": torch.Generator().manual_seed(seed)}
    arguments = {"persistent_workers": workers > 0, "collate_fn": collate, **order, **options}
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, **arguments)


def epoch(
    contender: Contender, place: Place, *, epochs: int = 1, workers: int = 2, seed: int = 0, check: bool = True
) -> dict[str, float]:
    """Read epochs, of which the last is measured; then one more, for a checksum of all bytes."""
    loader = make_loader(contender.make(place, **contender.options), seed=seed, workers=workers)
    for _ in range(epochs):
        cpu, began, count, size = cpu_s(), time.perf_counter(), 0, 0
        for names, contents in loader:
            count += len(names)
            size += sum(map(len, contents))
        took_s, used_s = time.perf_counter() - began, cpu_s() - cpu
    figures = {"samples/s": count / took_s, "CPU ms/sample": 1e3 * used_s / count, "bytes": float(size)}
    figures |= {"PSS MB": all_pss_bytes() / 1e6, "epochs": epochs + check}
    return figures | (_checksum(loader) if check else {})


def checked(contender: Contender, place: Place) -> dict[str, float]:
    """Read one epoch for nothing but the checksum of all bytes."""
    return _checksum(make_loader(contender.make(place, **contender.options)))


def _checksum(loader: Any) -> dict[str, float]:
    digests = (xxhash.xxh3_64_intdigest(content) for _, contents in loader for content in contents)
    return {"checksum": float(sum(digests) % (1 << 52))}


def told_epoch(contender: Contender, place: Place, **options: Any) -> dict[str, float]:
    """Make the dataset, say so, and wait for a line of input before the epoch begins."""
    dataset = contender.make(place, **contender.options)
    print("ready", flush=True)
    sys.stdin.readline()
    return epoch(Contender(contender.label, lambda place: dataset), place, check=False, **options)


def single(contender: Contender, place: Place) -> dict[str, float]:
    """Read every sample by index, in random order, five times over; the first time is not counted."""
    dataset = contender.make(place, **contender.options)
    return _percentiles(dataset.__getitem__, random.Random(0).sample(range(len(dataset)), len(dataset)))


def batches(contender: Contender, place: Place) -> dict[str, float]:
    """Read batches of 64 by `__getitems__`, else one by one."""
    dataset = contender.make(place, **contender.options)
    order = random.Random(0).sample(range(len(dataset)), len(dataset))
    chunks = [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]
    many = getattr(dataset, "__getitems__", lambda chunk: [dataset[index] for index in chunk])
    figures = _percentiles(many, chunks)
    return {name: value / BATCH for name, value in figures.items()}


def copying(place: Place, *, size: int) -> dict[str, float]:
    """Make `bytes` of so many bytes that lie in memory: the floor of what hands out bytes."""
    blocks = [memoryview(np.random.default_rng(seed).bytes(size)) for seed in range(2000)]
    return _percentiles(bytes, random.Random(0).sample(blocks, len(blocks)))


def _percentiles(read: Callable[[Any], Any], order: list[Any]) -> dict[str, float]:
    took = []
    for turn in range(5):
        for item in order:
            began = time.perf_counter_ns()
            read(item)
            if turn:
                took.append(time.perf_counter_ns() - began)
    values = np.percentile(np.array(took) / 1e3, [50, 90, 99, 100])
    return dict(zip(("us p50", "us p90", "us p99", "us max"), values.tolist(), strict=True))


def half(contender: Contender, place: Place, *, capacity: int) -> dict[str, float]:
    """Read three epochs with room for a part of the data; the disk is looked at after every batch."""
    dataset = contender.make(place, capacity=capacity, **contender.options)
    figures: dict[str, float] = {}
    peak = 0
    loader = make_loader(dataset)
    for number in range(1, 4):
        before = dataset.cache.stats()
        for _ in loader:
            peak = max(peak, disk_usage_bytes(place.directory))
        figures[f"hit ratio, epoch {number}"] = (dataset.cache.stats() - before).hit_ratio
    return {**figures, "peak bytes / capacity": peak / capacity}
