"""`Ledger`: which versions the cluster has, or may have, told to all processes through a mapped file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tools.soaking.objects import number_of


class Ledger:
    """Two numbers for each object: the last version that was begun to be put, and the last one that is in place.

    The first grows before a put and the second after it. So the versions that the cluster may have named between two
    moments are those from `done` at the first to `begun` at the second, without any clock.
    """

    def __init__(self, path: Path) -> None:
        self._table = np.memmap(path, np.uint64, "r+").reshape(2, -1)
        self.begun, self.done = self._table

    @classmethod
    def create(cls, path: Path, *, count: int) -> Ledger:
        path.write_bytes(bytes(16 * count))
        return cls(path)

    def snapshot(self) -> list[int]:
        """Return what is in place now, by number."""
        return list(map(int, self.done))

    def outdated(self, listed: Iterable[tuple[str, int]], *, since: Sequence[int]) -> list[str]:
        """Return what is wrong with the versions in a listing that was asked for after `since` and has arrived now."""
        wrong = []
        for name, serial in listed:
            first, last = since[number_of(name)], int(self.begun[number_of(name)])
            if not first <= serial <= last:
                wrong.append(f"{name} was listed as version {serial}, the cluster had {first} to {last}")
        return wrong

    def was_overwritten(self, name: str, serial: int) -> bool:
        """Tell whether a version is, or may be, no longer the one in place."""
        return int(self.begun[number_of(name)]) > serial
