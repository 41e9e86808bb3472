"""`Moments`: since when each participant has been at what it does now, in a mapped file: who hangs is found by it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

SLOTS = 64


class Moments:
    """Two numbers for each participant.

    The first is the monotonic clock in ns when its present step began, 0 between steps; the second tells whether the
    workers of its DataLoader end with it.
    """

    def __init__(self, path: Path) -> None:
        self._began, self._watched = np.memmap(path, np.uint64, "r+").reshape(2, SLOTS)

    @classmethod
    def create(cls, path: Path) -> Moments:
        path.write_bytes(bytes(2 * 8 * SLOTS))
        return cls(path)

    def begin(self, slot: int) -> None:
        self._began[slot] = time.monotonic_ns()

    def end(self, slot: int) -> None:
        self._began[slot] = 0

    def since(self, slot: int) -> float | None:
        """Return the moment in seconds, None between steps."""
        began = int(self._began[slot])
        return began / 1e9 if began else None

    def note_workers(self, slot: int, *, end_with_trainer: bool) -> None:
        """Note whether the workers that come now end with their trainer; torch's own may not."""
        self._watched[slot] = end_with_trainer

    def workers_end(self, slot: int) -> bool:
        return bool(self._watched[slot])
