"""What warming answers with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Failure(NamedTuple):
    """An object that could not be had, and why."""

    url: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is missing, and the room there is for it; all sizes in bytes.

    `needed_bytes` is what the missing objects will take in the cache: their payload, what describes it, and the index.
    Objects whose size is not known before they are fetched count nothing.
    """

    objects: int
    bytes: int
    present_objects: int
    present_bytes: int
    needed_bytes: int
    free_bytes: int
    evictable_bytes: int

    @property
    def missing_objects(self) -> int:
        """How many objects are to be fetched."""
        return self.objects - self.present_objects

    @property
    def missing_bytes(self) -> int:
        """Their payload bytes."""
        return self.bytes - self.present_bytes

    @property
    def fits(self) -> bool:
        """Whether there is room, or room can be made of what nobody uses."""
        return self.needed_bytes <= self.free_bytes + self.evictable_bytes

    def asdict(self) -> dict[str, Any]:
        """Return all as plain data."""
        return {
            **asdict(self),
            "missing_objects": self.missing_objects,
            "missing_bytes": self.missing_bytes,
            "fits": self.fits,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """What came of it. Each object that was asked for is one of: present, fetched, came, unfit, failed.

    `came_objects` were missing at first and brought by other processes meanwhile. `unfit_objects` had no room. The
    rates are of fetching alone, which took `fetch_s` of `seconds`. `dry_run`: nothing was fetched.
    """

    need: Need
    dry_run: bool = False
    fetched_objects: int = 0
    fetched_bytes: int = 0
    came_objects: int = 0
    unfit_objects: int = 0
    failures: tuple[Failure, ...] = ()
    fetch_s: float = 0.0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is in the cache now."""
        here = self.need.present_objects + self.fetched_objects + self.came_objects
        return here == self.need.objects and not self.failures

    def asdict(self) -> dict[str, Any]:
        """Return all as plain data, for JSON."""
        own = {name: getattr(self, name) for name in self.__slots__ if name not in ("need", "failures")}
        failed = [failure._asdict() for failure in self.failures]
        return {**self.need.asdict(), **own, "failed_objects": len(failed), "failed": failed, "complete": self.complete}
