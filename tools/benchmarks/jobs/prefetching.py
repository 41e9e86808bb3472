"""Training loops over `aiscache.DataLoader`: do they wait for data?"""

from __future__ import annotations

import os
import time
from typing import Any

import psutil

from benchmarks.contenders import Contender, Place
from benchmarks.usage import cpu_s, pss_bytes
from benchmarks.workloads import BATCH


def loop(
    contender: Contender,
    place: Place,
    *,
    step: str = "sleep",
    length_s: float = 0.0,
    epochs: int = 1,
    capacity: int | str = "20GB",
    workers: int = 2,
    **options: Any,
) -> dict[str, float]:
    """Run epochs with a training step after each batch; the last one is measured."""
    import torch

    from aiscache import DataLoader

    dataset = contender.make(place, capacity=capacity, **contender.options)
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(1),
        collate_fn=list,
        persistent_workers=workers > 0,
        **options,
    )
    largest = 0
    for number in range(epochs):
        before, began, cpu, count = dataset.cache.stats(), time.perf_counter(), cpu_s(), 0
        for batch in loader:
            count += len(batch)
            train(step, length_s)
        took_s, used_s = time.perf_counter() - began, cpu_s() - cpu
        did = dataset.cache.stats() - before
        largest = max(largest, _largest_of_the_pool())
        figures = {"s": took_s, "fetched/object": did.fetched_objects / count, "stall s": did.stall_s}
        figures["CPU s"] = used_s
        assert number < epochs
    figures["pool PSS MB"] = largest / 1e6
    if loader.prefetcher is not None:
        loader.prefetcher.close()
    return figures


def compute(
    _place: Place, *, count: int, step: str, length_s: float, epochs: int = 1, workers: int = 2
) -> dict[str, float]:
    """Run the same loop with torch's own loader over a list in memory: nothing is fetched, and next to nothing sent."""
    import torch.utils.data

    loader = torch.utils.data.DataLoader(
        range(count),  # type: ignore[arg-type]  # a sequence is all that it asks for
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        collate_fn=list,
        persistent_workers=workers > 0,
    )
    took_s = 0.0
    for _ in range(epochs):
        began = time.perf_counter()
        for _ in loader:
            train(step, length_s)
        took_s = time.perf_counter() - began
    return {"s": took_s}


def train(kind: str, length_s: float) -> None:
    """Take so long: `sleep` as an accelerator does, `busy` as the trainer's own process does."""
    if kind == "sleep":
        time.sleep(length_s)
        return
    until = time.perf_counter() + length_s
    while time.perf_counter() < until:
        sum(range(100))


def _largest_of_the_pool() -> int:
    below = psutil.Process(os.getpid()).children(recursive=True)
    pool = [process.pid for process in below if "aiscache.prefetch" in " ".join(process.cmdline())]
    return max(map(pss_bytes, pool), default=0)


def first_batch(contender: Contender, place: Place, *, kind: str) -> dict[str, float]:
    """Time to the first batch of a warm epoch, of workers that are spawned; the best of three.

    `kind`: a "list" in memory (of names and sizes, so that sending the list itself costs little), torch's loader over
    our dataset, or ours.
    """
    import torch.utils.data

    from aiscache import DataLoader

    dataset = contender.make(place, **contender.options)
    data: Any = [(f"{number:08}", number) for number in range(len(dataset))] if kind == "list" else dataset
    make: Any = DataLoader if kind == "ours" else torch.utils.data.DataLoader
    loader = make(data, batch_size=BATCH, shuffle=True, num_workers=2, collate_fn=list, multiprocessing_context="spawn")
    took = []
    for _ in range(3):
        began = time.perf_counter()
        iterator = iter(loader)
        next(iterator)
        took.append(time.perf_counter() - began)
        del iterator
    return {"s": min(took)}
