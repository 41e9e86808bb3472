"""Where a worker's fetches land: space that was reserved before the request went out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiscache.fill import Wanted
from aiscache.locks import ByteLocks
from aiscache.origin import Body, Fetched
from aiscache.prefetch.plan import Outcome
from aiscache.store import STAGING, Reservation, Store


class Label(NamedTuple):
    """For which position of which epoch an object is fetched."""

    epoch: int
    position: int


class Landed(NamedTuple):
    """What became of one object: `segment` is where it is, if it was staged."""

    label: Label
    key: bytes
    outcome: Outcome
    segment: int | None = None


Reserve = Callable[[Label, Wanted, int], Reservation | None]


class _Nowhere:
    """A body that is read from the cluster and let go."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length

    def write(self, chunks: Sequence[bytes]) -> None:
        pass

    def restart(self) -> None:
        pass


class Landing:
    """A sink (see `aiscache.origin.Sink`) for one run of fetches; holds a flight and space for each until it ends.

    `reserve(label, wanted, size)` gives space, None if there is none. `close` gives back what did not arrive.
    """

    def __init__(self, store: Store, flights: ByteLocks, reserve: Reserve) -> None:
        self._store = store
        self._flights = flights
        self._reserve = reserve
        self._coming: list[tuple[Label, Wanted] | None] = []  # by index; None when it has ended
        self._reserved: dict[int, Reservation] = {}

    def expect(self, label: Label, wanted: Wanted) -> bool:
        """Prepare for the next object, whose flight the caller has; False if there is no space for it.

        An object whose size is not known, or is made by an ETL, is given its space when the cluster tells the size.
        """
        known = wanted.ref.size >= 0 and not wanted.ref.etl
        reservation = self._reserve(label, wanted, wanted.ref.size) if known else None
        if known and reservation is None:
            return False
        if reservation is not None:
            self._reserved[len(self._coming)] = reservation
        self._coming.append((label, wanted))
        return True

    def open(self, index: int, size: int) -> Body:
        """Return where an object goes: nowhere if it has no space."""
        reservation = self._reserved.get(index)
        if reservation is not None and reservation.length == size:
            return reservation
        self._give_up(index)
        coming = self._coming[index]
        reservation = None if coming is None else self._reserve(*coming, size)
        if reservation is None:
            return _Nowhere(size)
        self._reserved[index] = reservation
        return reservation

    def settle(self, arrived: Sequence[Fetched]) -> list[Landed]:
        """End objects: publish together those that arrived, free their flights; return what each was fetched for."""
        reserved = [self._reserved.pop(fetched.index, None) for fetched in arrived]
        kept: list[Reservation] = []
        try:
            for fetched, reservation in zip(arrived, reserved, strict=True):
                if reservation is None:
                    continue
                if fetched.error is not None:
                    self._store.give_up(reservation)
                else:
                    reservation.checksum = fetched.xxh64
                    kept.append(reservation)
            if kept:
                self._store.keep(kept)
            return [self._landed(*one) for one in zip(arrived, reserved, strict=True)]
        finally:
            for fetched in arrived:
                self._end(fetched.index, self._expected(fetched.index)[1])

    def _landed(self, fetched: Fetched, reservation: Reservation | None) -> Landed:
        label, wanted = self._expected(fetched.index)
        if fetched.error is not None:
            return Landed(label, wanted.key, Outcome.FAILED)
        if reservation is None or reservation.failure is not None:
            return Landed(label, wanted.key, Outcome.LEFT)
        if reservation.writer.tier == STAGING:
            return Landed(label, wanted.key, Outcome.STAGED, reservation.writer.segment_id)
        return Landed(label, wanted.key, Outcome.KEPT)

    def _expected(self, index: int) -> tuple[Label, Wanted]:
        coming = self._coming[index]
        assert coming is not None  # noqa: S101  (each index ends once)
        return coming

    def close(self) -> None:
        """Give back all that did not arrive."""
        for index, coming in enumerate(self._coming):
            if coming is not None:
                self._give_up(index)
                self._end(index, coming[1])

    def _end(self, index: int, wanted: Wanted) -> None:
        self._coming[index] = None
        self._flights.unlock(wanted.flight)

    def _give_up(self, index: int) -> None:
        reservation = self._reserved.pop(index, None)
        if reservation is not None:
            self._store.give_up(reservation)
