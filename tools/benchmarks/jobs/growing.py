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
from functools import partial
from typing import Any

import numpy as np
import xxhash

from aiscache.settings import CacheSettings
from aiscache.store import registry
from aiscache.store.index import Entry
from benchmarks.contenders import Place
from benchmarks.tables import Figures

_CAPACITY_BYTES = 1 << 37  # of no meaning but that all fits, the index too, which may take an eighth of it
_READS = 20_000
_TOGETHER = 256  # objects in one transaction
_ENTRIES = 100_000  # entries alone in one
_OBJECT_BYTES = 102_400
_FORK = multiprocessing.get_context("fork")


def entries(place: Place, *, count: int) -> Figures:
    """Read from an index of so many entries, which point to places within one large object."""
    return _measure(place, count=count, fill=_fill_index, read=len)


def segments(place: Place, *, count: int) -> Figures:
    """Read from a cache of so many segments with an object in each."""
    return _measure(place, count=count, fill=partial(_fill, size=16, together=1), read=len)


def mib(place: Place, *, count: int) -> Figures:
    """Read all bytes of objects of 100 KiB from a cache that has so many MiB of them."""
    return _measure(place, count=(count << 20) // _OBJECT_BYTES, fill=partial(_fill, size=_OBJECT_BYTES), read=bytes)


def _measure(
    place: Place, *, count: int, fill: Callable[[str, Sequence[int]], None], read: Callable[[Any], object]
) -> Figures:
    figures: Figures = {}
    if not os.path.exists(place.directory):
        began = time.perf_counter()
        filling = _FORK.Process(target=fill, args=(place.directory, range(count)))
        filling.start()
        filling.join()
        assert filling.exitcode == 0
        figures["s to fill"] = time.perf_counter() - began
    began = time.perf_counter()
    store = _open(place.directory)
    opened_s = time.perf_counter() - began
    chance = random.Random(0)
    some = chance.sample(range(count), min(count, _READS))
    first = _times_us(store, some, read)
    _times_us(store, some, read)  # mapping many segments takes seconds, after which their lengths are looked at once
    again = _times_us(store, [chance.randrange(count) for _ in range(_READS)], read)
    figures |= {"us per get, p50": float(np.percentile(again, 50)), "us per get, p99": float(np.percentile(again, 99))}
    figures |= {"us per first get, p50": float(np.percentile(first, 50)), "ms to open": 1e3 * opened_s}
    figures["segments"] = float(sum(1 for tier in store.tiers.values() for _ in tier.path.glob("*.seg")))
    registry.release(store)
    return figures


def _open(directory: str) -> Any:
    settings = CacheSettings.resolve(directory, capacity=_CAPACITY_BYTES)
    return registry.acquire(settings, in_use=lambda records: [True] * len(records))


def _fill_index(directory: str, numbers: Sequence[int]) -> None:
    """Make entries alone: a lookup sees no more of an object than that, and ten million records take long to write."""
    store = _open(directory)
    whole = store.reserve(key=bytes(16), digest=1, identity=b"", length=16 * len(numbers))
    whole.fill(b"".join(map(_key, numbers)))
    store.keep([whole])
    for some in _batches(range(len(numbers)), _ENTRIES):
        with store._index.write() as transaction:
            for number in some:
                entry = Entry(whole.writer.segment_id, whole.payload + 16 * number, 16, 0, 1)
                store._index.put_entry(transaction, _key(numbers[number]), entry)
    registry.release(store)


def _fill(directory: str, numbers: Sequence[int], *, size: int, together: int = _TOGETHER) -> None:
    store = _open(directory)
    rest = bytes(size - len(_key(0)))
    for some in _batches(numbers, together):
        reservations = []
        for key in map(_key, some):
            reservation = store.reserve(key=key, digest=1, identity=b"", length=size)
            assert reservation is not None, "the file system is full"
            reservation.fill(key + rest)
            reservations.append(reservation)
        store.keep(reservations)
        if together == 1:
            store._space.retire_all()  # the next one begins a segment
    registry.release(store)


def _batches(numbers: Sequence[int], together: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), together):
        yield numbers[first : first + together]


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
