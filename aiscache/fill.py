"""Filling the cache: fetching what is missing, once per machine.

One `fill` serves the misses of one read or one batch. Who fetches an object holds its flight, an exclusive byte lock
that the kernel frees if the holder dies; who finds it held waits, then looks in the store again. A flight is only a
way to save a fetch: past the patience, or when locks cannot be had, an object is fetched without one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from aiscache.errors import ConfigError, OriginError
from aiscache.keys import ObjectRef, pack_identity
from aiscache.locks import ByteLocks
from aiscache.origin import Body, Fetched, HeapBody, Origin
from aiscache.store import Reservation, Store
from aiscache.uninterrupted import Uninterrupted
from aiscache.view import View, own_view

_LOG = logging.getLogger("aiscache")

IN_FLIGHT = 16  # requests at a time for one reader
PUBLISH_TOGETHER = 8  # objects in one transaction of the index: a commit costs as much as a tenth of a fetch
PATIENCE_S = 30.0  # how long to wait for another's fetch: the SDK's read timeout and half as much again
_FLIGHT_RANGE = (1 << 62) - 1

Outcome = View | OriginError
_LATER = own_view(b"")


class Wanted(NamedTuple):
    """An object to be fetched, with the key and the version digest that `ref` would have to be hashed for."""

    ref: ObjectRef
    key: bytes
    digest: int

    @classmethod
    def of(cls, ref: ObjectRef) -> Wanted:
        """Return a ref with its hashes."""
        return cls(ref, ref.key, ref.digest)

    @property
    def flight(self) -> int:
        """The byte that stands for the object in the file `flights`."""
        return int.from_bytes(self.key[:8], "little") & _FLIGHT_RANGE


class StoreSink:
    """Receives bodies into the store's segments, into memory of our own where the store has no room.

    `settle` publishes what arrived; leaving the context gives back whatever was not settled, whyever that is.
    """

    def __init__(self, store: Store | None, wanted: Sequence[Wanted]) -> None:
        self._store = store
        self._wanted = wanted
        self._reserved: dict[int, Reservation] = {}

    def open(self, index: int, size: int) -> Body:
        """Return where an object goes; a second call for the same one gives the first place back."""
        with Uninterrupted():
            self._give_up(index)
            reservation = None
            if self._store is not None:
                ref, key, digest = self._wanted[index]
                reservation = self._store.reserve(key=key, digest=digest, identity=pack_identity(ref), length=size)
            if reservation is not None:
                self._reserved[index] = reservation
                return reservation
        return HeapBody(size)

    def settle(self, arrived: Sequence[Fetched]) -> list[Outcome]:
        """Return each object as the caller may have it, or its error; publish together what lies in the store."""
        with Uninterrupted():
            return self._settle(arrived)

    def _settle(self, arrived: Sequence[Fetched]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        kept: list[tuple[int, Reservation]] = []  # with their places among the outcomes
        for fetched in arrived:
            if fetched.error is not None:
                self._give_up(fetched.index)
                outcomes.append(fetched.error)
                continue
            body = fetched.result()
            if isinstance(body, HeapBody):
                outcomes.append(own_view(body.data))
                continue
            reservation = self._reserved.pop(fetched.index)
            reservation.checksum = fetched.xxh64
            kept.append((len(outcomes), reservation))
            outcomes.append(_LATER)
        if kept and self._store is not None:
            views = self._store.publish([reservation for _, reservation in kept])
            for (place, _), view in zip(kept, views, strict=True):
                outcomes[place] = view
        return outcomes

    def close(self) -> None:
        """Give back the space of all that did not arrive."""
        with Uninterrupted():
            for index in list(self._reserved):
                self._give_up(index)

    def _give_up(self, index: int) -> None:
        reservation = self._reserved.pop(index, None)
        if reservation is not None and self._store is not None:
            self._store.give_up(reservation)


def fetch_all(
    store: Store | None, wanted: Sequence[Wanted], *, origins: Mapping[str, Origin] = MappingProxyType({})
) -> dict[bytes, View]:
    """Fetch objects, no key twice, from their clusters; keep them in the store; return them by key.

    `origins` are by cluster UUID; a cluster that is not among them is looked for among those known to this process.
    Raises the error of the first object that fails, once all have ended: what did arrive is kept.
    """
    views: dict[bytes, View] = {}
    failed: OriginError | None = None
    for cluster in dict.fromkeys(one.ref.cluster for one in wanted):
        ours = [one for one in wanted if one.ref.cluster == cluster]
        for index, outcome in fill(store, origins.get(cluster) or _known_origin(ours[0].ref), ours):
            if isinstance(outcome, OriginError):
                failed = failed or outcome
            else:
                views[ours[index].key] = outcome
    if failed is not None:
        raise failed
    return views


def _known_origin(ref: ObjectRef) -> Origin:
    origin = Origin.for_cluster(ref.cluster)
    if origin is None:
        raise ConfigError(
            f"{ref.url} is not in the cache, and this process knows no cluster with UUID {ref.cluster!r}; make a "
            f"dataset of it first, or Origin.from_client(client)"
        )
    return origin


def fill(
    store: Store | None, origin: Origin, wanted: Sequence[Wanted], *, in_flight: int = IN_FLIGHT
) -> Iterator[tuple[int, Outcome]]:
    """Yield (index, view or error) for every ref, as they arrive; none of them is in the store, as far as is known."""
    if store is None:
        yield from _fetch(None, origin, wanted, range(len(wanted)), in_flight=in_flight)
        return
    began = time.monotonic_ns()
    try:
        with _flights(store) as flights:
            if flights is None:
                yield from _fetch(store, origin, wanted, range(len(wanted)), in_flight=in_flight)
            else:
                yield from _share(store, origin, wanted, flights, in_flight=in_flight)
    finally:
        store.counters.add("stall_ns", time.monotonic_ns() - began)


@contextmanager
def _flights(store: Store) -> Iterator[ByteLocks | None]:
    """Open the flights for one fill: locks through a descriptor of its own, which also excludes our other threads."""
    try:
        locks = ByteLocks(store.directory.flights)
    except OSError as error:  # out of descriptors, or the directory is gone or read-only
        store.failures.complain("lock in", error)
        yield None
        return
    try:
        yield locks
    finally:
        locks.close()


def _share(
    store: Store, origin: Origin, wanted: Sequence[Wanted], flights: ByteLocks, *, in_flight: int = IN_FLIGHT
) -> Iterator[tuple[int, Outcome]]:
    """Fetch what nobody else is fetching, then see what became of the rest.

    1. We find a key missing. 2. Another process, which had its flight, publishes it and lets the flight go. 3. We get
    the flight. So whoever gets a flight looks in the store again before fetching. We never wait while we hold one:
    two processes with batches that overlap would wait for each other.
    """
    pending = list(range(len(wanted)))
    deadline = time.monotonic() + PATIENCE_S
    while pending:
        ours = [index for index in pending if flights.try_exclusive(wanted[index].flight)]
        if ours:
            yield from _look_again_or_fetch(store, origin, wanted, ours, flights=flights, in_flight=in_flight)
            taken = set(ours)
            pending = [index for index in pending if index not in taken]
            continue
        store.counters.add("waits", len(pending))
        first = wanted[pending[0]].flight
        if not flights.wait_exclusive(first, timeout_s=max(0.0, deadline - time.monotonic())):
            _LOG.warning(
                "waited %.0f s for another process to fetch %s: fetching it here too",
                PATIENCE_S,
                wanted[pending[0]].ref.url,
            )
            yield from _fetch(store, origin, wanted, pending, in_flight=in_flight)
            return


def _look_again_or_fetch(
    store: Store,
    origin: Origin,
    wanted: Sequence[Wanted],
    ours: Sequence[int],
    *,
    flights: ByteLocks,
    in_flight: int,
) -> Iterator[tuple[int, Outcome]]:
    missing = []
    for index in ours:
        view = store.get(wanted[index].key, wanted[index].digest)
        if view is None:
            missing.append(index)
        else:
            flights.unlock(wanted[index].flight)
            yield index, view
    for index, outcome in _fetch(store, origin, wanted, missing, in_flight=in_flight):
        flights.unlock(wanted[index].flight)
        yield index, outcome


def _fetch(
    store: Store | None, origin: Origin, wanted: Sequence[Wanted], which: Sequence[int], *, in_flight: int = IN_FLIGHT
) -> Iterator[tuple[int, Outcome]]:
    chosen = [wanted[index] for index in which]
    sink = StoreSink(store, chosen)
    arrived: list[Fetched] = []

    def settle() -> Iterator[tuple[int, Outcome]]:
        if store is not None:
            good = [fetched for fetched in arrived if fetched.error is None]
            store.counters.add("fetched_objects", len(good))
            store.counters.add("fetched_bytes", sum(fetched.size for fetched in good))
            for fetched in good:
                store.counters.took(fetched.took_s)
        outcomes = sink.settle(arrived)
        places = [which[fetched.index] for fetched in arrived]
        arrived.clear()
        yield from zip(places, outcomes, strict=True)

    try:
        for fetched in origin.fetch([one.ref for one in chosen], sink, in_flight=in_flight):
            arrived.append(fetched)
            if len(arrived) >= PUBLISH_TOGETHER:
                yield from settle()
        yield from settle()
    finally:
        sink.close()
