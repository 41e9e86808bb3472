"""Reading from larger caches, and with more readers."""

from __future__ import annotations

import multiprocessing
import random
import time
from typing import Any

import numpy as np
import xxhash

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


def entries(place: Place, *, entries: int) -> dict[str, float]:
    """Read at random from a cache of so many small objects."""
    return _filled(place, count=entries, size=16)


def segments(place: Place, *, segments: int) -> dict[str, float]:
    """Read at random from a cache of so many segments, with an object in each."""
    return _filled(place, count=segments, size=16, together=1)


def _filled(place: Place, *, count: int, size: int, together: int = 64) -> dict[str, float]:
    from aiscache.settings import CacheSettings
    from aiscache.store import registry

    settings = CacheSettings.resolve(place.directory, capacity="4GB")
    store = registry.acquire(settings, in_use=lambda records: [True] * len(records))
    began = time.perf_counter()
    data = bytes(size)
    for first in range(0, count, together):
        reservations = []
        for number in range(first, min(first + together, count)):
            key = _key(number)
            reservation = store.reserve(key=key, digest=1, identity=b"", length=size)
            assert reservation is not None
            reservation.fill(data)
            reservations.append(reservation)
        store.keep(reservations)
        if together == 1:
            store._space.retire_all()  # the next one begins a segment
    put_us = 1e6 * (time.perf_counter() - began) / count
    chance = random.Random(0)
    keys = [_key(chance.randrange(count)) for _ in range(_READS)]
    for key in keys[: _READS // 10]:
        assert store.get(key, 1) is not None
    took = []
    for key in keys:
        began_ns = time.perf_counter_ns()
        view = store.get(key, 1)
        took.append(time.perf_counter_ns() - began_ns)
        assert view is not None
    figures = np.percentile(np.array(took) / 1e3, [50, 99]).tolist()
    files = sum(1 for tier in store.tiers.values() if tier.path.exists() for _ in tier.path.glob("*.seg"))
    registry.release(store)
    return {
        "us per get, p50": figures[0],
        "us per get, p99": figures[1],
        "us per put": put_us,
        "segments": float(files),
    }


def _key(number: int) -> bytes:
    return xxhash.xxh3_128_digest(number.to_bytes(8, "little"))
