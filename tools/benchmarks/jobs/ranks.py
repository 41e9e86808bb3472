"""Ranks of one machine, each a process with a part of the data and workers of its own."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from benchmarks.contenders import Contender, Place
from benchmarks.jobs.reading import collate
from benchmarks.workloads import BATCH


def ranks(contender: Contender, place: Place, *, ranks: int) -> dict[str, float]:
    """Read one epoch with so many ranks at once; `samples/s` is of all together."""
    context = multiprocessing.get_context("spawn")
    ready, go, counts = context.Barrier(ranks + 1), context.Event(), context.Queue()
    jobs = [
        context.Process(target=_rank, args=(contender, place, rank, ranks, ready, go, counts)) for rank in range(ranks)
    ]
    for job in jobs:
        job.start()
    ready.wait()
    began = time.perf_counter()
    go.set()
    count = sum(counts.get() for _ in jobs)
    took_s = time.perf_counter() - began
    for job in jobs:
        job.join()
    return {"samples/s": count / took_s}


def _rank(contender: Contender, place: Place, rank: int, ranks: int, ready: Any, go: Any, counts: Any) -> None:
    from torch.utils.data import DistributedSampler

    from aiscache import DataLoader

    dataset = contender.make(place, **contender.options)
    sampler: Any = DistributedSampler(dataset, num_replicas=ranks, rank=rank, shuffle=True)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler, collate_fn=collate, prefetch_processes=1)
    ready.wait()
    go.wait()
    counts.put(sum(len(names) for names, _ in loader))
    if loader.prefetcher is not None:
        loader.prefetcher.close()
