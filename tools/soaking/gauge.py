"""`Gauge`: how many bytes the cache takes, looked at all along."""

from __future__ import annotations

import time
from pathlib import Path

from aiscache.store.tiers import memory_tier
from tests.actor import bytes_on_disk
from tools.soaking.figures import Figures
from tools.soaking.job import Job

MOST_INDEX = 4 << 20  # LMDB takes new pages for each write while somebody is held up, or stopped, in a lookup
_AGAIN = 5  # a walk over files that come and go counts some of them too much: what stays too much is wrong


class Gauge:
    """Looks at the directory, its index, its memory tier, and what is staged for readers."""

    def __init__(self, job: Job, figures: Figures) -> None:
        self._figures = figures
        self._job = job
        self._path = Path(job.cache)
        self._memory = memory_tier(self._path)

    def look(self, *, stagers: int) -> None:
        """Look once. `stagers` are the loaders that run, or that were killed a moment ago."""
        bounds = {
            "disk tier and listings": self._job.capacity,
            "index": MOST_INDEX,
            "memory tier": self._job.memory,
            "staged": stagers * self._job.lookahead,
        }
        self._figures.looks += 1
        found: dict[str, int] = {}
        for _ in range(_AGAIN):
            again = self._measure()
            found = {name: min(found.get(name, size), size) for name, size in again.items()}
            if all(found[name] <= bound for name, bound in bounds.items()):
                break
            time.sleep(0.02)
        for name, bound in bounds.items():
            if not self._figures.peak(name, found[name], bound):
                self._figures.broken(f"{name}: {found[name]:,} bytes on disk, {bound:,} allowed")

    def _measure(self) -> dict[str, int]:
        index = _size(self._path / "index")
        return {
            "disk tier and listings": _size(self._path, without="staging") - index,
            "index": index,
            "memory tier": _size(self._memory),
            "staged": _size(self._path / "staging"),
        }


def _size(path: Path, *, without: str = "") -> int:
    try:
        return bytes_on_disk(path, without=without)
    except FileNotFoundError:
        return 0
