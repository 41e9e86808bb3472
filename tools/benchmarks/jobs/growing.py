"""Reading from larger and larger caches: more entries of the index, more segments, more bytes.

A cache is filled by the first job that finds none, in a process of its own; what is measured is its opening and its
reading, by another one. Each object begins with its key, so that a wrong answer is found out.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from aiscache.settings import CacheSettings
from aiscache.store import registry
from benchmarks.contenders import Place
from benchmarks.tables import Figures

_CAPACITY_BYTES = 1 << 37  # of no meaning but that all fits, the index too, which may take an eighth of it
_READS = 20_000
_TOGETHER = 256  # objects in one transaction
_OBJECT_BYTES = 102_400
_FORK = multiprocessing.get_context("fork")


def entries(place: Place, *, count: int) -> Figures:
    """Read from a cache of so many objects of 16 bytes."""
    return _measure(place, count=count, size=16, read=len)


def segments(place: Place, *, count: int) -> Figures:
    """Read from a cache of so many segments with an object in each."""
    return _measure(place, count=count, size=16, read=len, together=1)


def mib(place: Place, *, count: int) -> Figures:
    """Read all bytes of objects of 100 KiB from a cache that has so many MiB of them."""
    return _measure(place, count=(count << 20) // _OBJECT_BYTES, size=_OBJECT_BYTES, read=bytes)


def _measure(
    place: Place, *, count: int, size: int, read: Callable[[Any], object], together: int = _TOGETHER
) -> Figures:
    figures: Figures = {}
    if not os.path.exists(place.directory):
        began = time.perf_counter()
        filling = _FORK.Process(target=_fill, args=(place.directory, range(count), size, together))
        filling.start()
        filling.join()
        assert filling.exitcode == 0
        figures["s to fill"] = time.perf_counter() - began
    began = time.perf_counter()
    store = _open(place.directory)
    opened_s = time.perf_counter() - began
    chance = random.Random(0)
    first = _times_us(store, chance.sample(range(count), min(count, _READS)), read)
    again = _times_us(store, [chance.randrange(count) for _ in range(_READS)], read)
    figures |= {"us per get, p50": float(np.percentile(again, 50)), "us per get, p99": float(np.percentile(again, 99))}
    figures |= {"us per first get, p50": float(np.percentile(first, 50)), "ms to open": 1e3 * opened_s}
    figures["segments"] = float(sum(1 for tier in store.tiers.values() for _ in tier.path.glob("*.seg")))
    registry.release(store)
    return figures


def _open(directory: str) -> Any:
    settings = CacheSettings.resolve(directory, capacity=_CAPACITY_BYTES)
    return registry.acquire(settings, in_use=lambda records: [True] * len(records))


def _fill(directory: str, numbers: Sequence[int], size: int, together: int) -> None:
    store = _open(directory)
    rest = bytes(size - len(_key(0)))
    for keys in _batches(numbers, together):
        reservations = []
        for key in keys:
            reservation = store.reserve(key=key, digest=1, identity=b"", length=size)
            assert reservation is not None, "the file system is full"
            reservation.fill(key + rest)
            reservations.append(reservation)
        store.keep(reservations)
        if together == 1:
            store._space.retire_all()  # the next one begins a segment
    registry.release(store)


def _batches(numbers: Sequence[int], together: int) -> Iterator[list[bytes]]:
    for first in range(0, len(numbers), together):
        yield [_key(number) for number in numbers[first : first + together]]


def _times_us(store: Any, numbers: Sequence[int], read: Callable[[Any], object]) -> list[float]:
    took = []
    for key in map(_key, numbers):
        began = time.perf_counter_ns()
        view = store.get(key, 1)
        read(view)
        took.append((time.perf_counter_ns() - began) / 1e3)
        assert bytes(view[:16]) == key
    return took


def _key(number: int) -> bytes:
    return xxhash.xxh3_128_digest(number.to_bytes(8, "little"))
