"""Reading views with more and more processes."""

from __future__ import annotations

import multiprocessing
import random
import time
from typing import Any

from benchmarks.contenders import Contender, Place

_READS = 20_000


def readers(contender: Contender, place: Place, *, processes: int) -> dict[str, float]:
    """Have processes read views at random, as many reads each; reads of all together per second."""
    context = multiprocessing.get_context("fork")
    dataset = contender.make(place, **contender.options)
    ready, rates = context.Barrier(processes), context.Queue()
    children = [context.Process(target=_reader, args=(dataset, seed, ready, rates)) for seed in range(processes)]
    for child in children:
        child.start()
    total = sum(rates.get() for _ in children)
    for child in children:
        child.join()
    return {"reads/s": total}


def _reader(dataset: Any, seed: int, ready: Any, rates: Any) -> None:
    chance = random.Random(seed)
    order = [chance.randrange(len(dataset)) for _ in range(_READS)]
    for index in order[:1000]:
        dataset[index]
    ready.wait()
    began = time.perf_counter()
    for index in order:
        dataset[index]
    rates.put(_READS / (time.perf_counter() - began))
