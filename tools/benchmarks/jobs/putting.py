"""Putting objects of 100 KiB into a fresh store, and the same bytes into fresh files: what memory itself takes.

The store is written through what a reader and the pool of prefetchers receive bodies with, in pieces as libcurl hands
them out; their checksum is known, since it was computed as they came. Each writer is a process; the clock runs from the
first one's start to the last one's end, and all is read back afterwards.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiscache.fill import IN_FLIGHT, PUBLISH_TOGETHER, StoreSink, Wanted
from aiscache.keys import ObjectRef, pack_identity
from aiscache.locks import ByteLocks
from aiscache.origin import Body, Fetched
from aiscache.prefetch.landing import Label, Landing
from aiscache.settings import CacheSettings
from aiscache.store import Reservation, Store, registry
from aiscache.store.record import checksum_of
from benchmarks.contenders import Place
from benchmarks.tables import Figures

OBJECT_BYTES = 102_400
_BLOCKS = [random.Random(seed).randbytes(OBJECT_BYTES) for seed in range(64)]
_PIECE_BYTES = 16 << 10  # CURL_MAX_WRITE_SIZE
_PIECES = [[block[at : at + _PIECE_BYTES] for at in range(0, OBJECT_BYTES, _PIECE_BYTES)] for block in _BLOCKS]
_SUMS = [checksum_of(block) for block in _BLOCKS]
_EXTENT_BYTES = 8 << 20
_POPULATE_WRITE = 23  # madvise(2): MADV_POPULATE_WRITE
_FORK = multiprocessing.get_context("fork")


def store(place: Place, *, way: str, objects: int, writers: int) -> Figures:
    """Put objects into one store, in the way of a "reader" or of the "pool"."""
    return _measure(_as_reader if way == "reader" else _as_pool, place.directory, objects, writers)


def files(place: Place, *, way: str, objects: int, writers: int) -> Figures:
    """Copy the bytes into a file for each writer, by "pwrite", into a "mapping", or into one "populated" before."""
    os.makedirs(place.directory)
    ways: dict[str, Callable[..., Any]] = {"pwrite": _by_pwrite, "mapping": _by_mapping, "populated": _by_populated}
    return _measure(ways[way], place.directory, objects, writers)


def _measure(write: Callable[..., Any], directory: str, objects: int, writers: int) -> Figures:
    ready, told = _FORK.Barrier(writers), _FORK.Queue()
    clock = _Clock(ready, told)
    children = [
        _FORK.Process(target=write, args=(directory, range(part, objects, writers), clock)) for part in range(writers)
    ]
    for child in children:
        child.start()
    found = [told.get() for _ in children]
    for child in children:
        child.join()
        assert child.exitcode == 0, "not all that was written could be read back"
    took_s = max(ended for _, ended, _ in found) - min(began for began, _, _ in found)
    used_s = sum(used for _, _, used in found)
    return {"MB/s": objects * OBJECT_BYTES / took_s / 1e6, "CPU us/object": 1e6 * used_s / objects}


class _Clock:
    """Measures a block in each of some processes, which enter it together; `told` is a queue for what was measured."""

    def __init__(self, ready: Any, told: Any) -> None:
        self._ready, self._told = ready, told

    def __enter__(self) -> None:
        self._ready.wait()
        self._began, self._used = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self._told.put((self._began, time.perf_counter(), time.process_time() - self._used))


# ---- into the store


def _wanted(numbers: Sequence[int]) -> list[Wanted]:
    return [
        Wanted.of(ObjectRef(cluster="bench", provider="ais", bucket="bench", name=f"{number:08}", size=OBJECT_BYTES))
        for number in numbers
    ]


def _as_reader(directory: str, numbers: Sequence[int], clock: _Clock) -> None:
    """So many objects under way at a time, published some together."""
    made, wanted = _open(directory), _wanted(numbers)
    sink = StoreSink(made, wanted)
    with clock:
        for chunk in _chunks(range(len(wanted)), IN_FLIGHT):
            bodies = {place: sink.open(place, OBJECT_BYTES) for place in chunk}
            for together in _chunks(chunk, PUBLISH_TOGETHER):
                sink.settle([_arrive(place, wanted[place], bodies[place], numbers[place]) for place in together])
    sink.close()
    _check(made, wanted, numbers)


def _as_pool(directory: str, numbers: Sequence[int], clock: _Clock) -> None:
    """The same, but that space and flight are taken before an object is asked for."""
    made, wanted = _open(directory), _wanted(numbers)
    flights = ByteLocks(made.directory.flights)

    def reserve(label: Label, one: Wanted, size: int) -> Reservation | None:
        return made.reserve(key=one.key, digest=one.digest, identity=pack_identity(one.ref), length=size)

    landing = Landing(made, flights, reserve)
    with clock:
        for chunk in _chunks(range(len(wanted)), IN_FLIGHT):
            for place in chunk:
                assert flights.try_exclusive(wanted[place].flight)
                assert landing.expect(Label(1, place), wanted[place])
            for together in _chunks(chunk, PUBLISH_TOGETHER):
                bodies = [landing.open(place, OBJECT_BYTES) for place in together]
                landing.settle(
                    [
                        _arrive(place, wanted[place], body, numbers[place])
                        for place, body in zip(together, bodies, strict=True)
                    ]
                )
    landing.close()
    _check(made, wanted, numbers)


def _arrive(place: int, one: Wanted, body: Body, number: int) -> Fetched:
    kind = number % len(_BLOCKS)
    body.write(_PIECES[kind])
    return Fetched(place, one.ref, body, OBJECT_BYTES, _SUMS[kind])


def _open(directory: str) -> Store:
    return registry.acquire(
        CacheSettings.resolve(directory, capacity="20GB"), in_use=lambda records: [True] * len(records)
    )


def _check(made: Store, wanted: Sequence[Wanted], numbers: Sequence[int]) -> None:
    for one, number in zip(wanted, numbers, strict=True):
        view = made.get(one.key, one.digest)
        assert view is not None
        assert view.data == _block(number)
    registry.release(made)


# ---- into files


def _by_pwrite(directory: str, numbers: Sequence[int], clock: _Clock) -> None:
    fd = _file(directory, numbers)
    with clock:
        for place, number in enumerate(numbers):
            os.pwrite(fd, _block(number), place * OBJECT_BYTES)
    _check_file(fd, numbers)


def _by_mapping(directory: str, numbers: Sequence[int], clock: _Clock) -> None:
    fd = _file(directory, numbers)
    with clock:
        size = len(numbers) * OBJECT_BYTES
        os.ftruncate(fd, size)
        _copy(memoryview(mmap.mmap(fd, size)), numbers)
    _check_file(fd, numbers)


def _by_populated(directory: str, numbers: Sequence[int], clock: _Clock) -> None:
    """Have the kernel make the pages, an extent at a time, before the bytes are copied."""
    fd = _file(directory, numbers)
    with clock:
        for chunk in _chunks(numbers, _EXTENT_BYTES // OBJECT_BYTES):
            start = os.fstat(fd).st_size
            size = len(chunk) * OBJECT_BYTES
            os.posix_fallocate(fd, start, size)
            window = mmap.mmap(fd, size, offset=start)
            window.madvise(_POPULATE_WRITE)
            _copy(memoryview(window), chunk)
    _check_file(fd, numbers)


def _copy(window: memoryview, numbers: Sequence[int]) -> None:
    for place, number in enumerate(numbers):
        window[place * OBJECT_BYTES : (place + 1) * OBJECT_BYTES] = _block(number)


def _file(directory: str, numbers: Sequence[int]) -> int:
    return os.open(os.path.join(directory, str(numbers[0])), os.O_RDWR | os.O_CREAT | os.O_EXCL)


def _check_file(fd: int, numbers: Sequence[int]) -> None:
    with mmap.mmap(fd, 0) as window:
        for place, number in enumerate(numbers):
            assert window[place * OBJECT_BYTES : (place + 1) * OBJECT_BYTES] == _block(number)
    os.close(fd)


def _block(number: int) -> bytes:
    return _BLOCKS[number % len(_BLOCKS)]


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
