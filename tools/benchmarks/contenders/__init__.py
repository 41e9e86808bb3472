"""Who is measured. A contender makes a torch dataset of samples (name, content) out of a `Place`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where the data is (an endpoint and a bucket), and a directory for what a contender keeps."""

    endpoint: str
    bucket: str
    directory: str


class Kind(Enum):
    """What a contender reads: the objects, by our code or by others', or another format that they were put into."""

    OURS = auto()
    PLAIN = auto()
    REPACKED = auto()


@dataclass(frozen=True)
class Contender:
    """`make(place, **options)` is called in the process that is measured.

    `needs` are modules that must be there, and `fill` makes what a contender reads that is no cache (files, another
    format). Ours is compared with the best of kind PLAIN.
    """

    label: str
    make: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    fill: Callable[[Place], None] | None = None
    kind: Kind = Kind.PLAIN

    def missing(self) -> str:
        """Return what is not installed, "" if all is."""
        return ", ".join(name for name in self.needs if importlib.util.find_spec(name) is None)


_MODULES = ("ours", "reference", "files", "caches", "shards", "litdata_raw", "litdata_optimized", "mosaic")


def contenders() -> dict[str, Contender]:
    """Return all contenders by a short name."""
    found: dict[str, Contender] = {}
    for name in _MODULES:
        found |= importlib.import_module(f"benchmarks.contenders.{name}").CONTENDERS
    return found


def bucket(place: Place) -> Any:
    """Return the SDK's bucket."""
    from aistore.sdk import Client

    return Client(place.endpoint).bucket(place.bucket)
