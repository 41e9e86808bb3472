"""A dataset of very many objects: how long until it is there, and what its copies in workers take."""

from __future__ import annotations

import os
import pickle
import time
from typing import Any

from benchmarks.contenders import Place
from benchmarks.usage import anonymous_bytes


def listed(place: Place, *, bucket: str) -> dict[str, float]:
    """Make the dataset, whose listing nobody has yet."""
    return _make(place, bucket)


def stored(place: Place, *, bucket: str) -> dict[str, float]:
    """Make the dataset of a listing that the cache has."""
    return _make(place, bucket, max_listing_age_s=1e9)


def _make(place: Place, bucket: str, **options: Any) -> dict[str, float]:
    from benchmarks.contenders.ours import make

    place = Place(place.endpoint, bucket, place.directory)
    import aiscache  # noqa: F401  (imports are not part of it)
    from aiscache import AISMapDataset  # noqa: F401

    began = time.perf_counter()
    dataset = make(place, **options)
    took_s = time.perf_counter() - began
    names = dataset.manifest
    return {
        "s": took_s,
        "objects": float(len(names)),
        "pickle bytes": float(len(pickle.dumps(dataset))),
        "MB more in a forked worker that looks at every row": _growth_bytes(dataset) / 1e6,
    }


def _growth_bytes(dataset: Any) -> int:
    """Return how much a forked child's own memory grows while it goes through all rows."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        manifest = dataset.manifest
        manifest.name(0), manifest.key(0)
        before = anonymous_bytes(os.getpid())
        for row in range(len(manifest)):
            manifest.name(row)
            manifest.key(row)
        os.write(writing, str(anonymous_bytes(os.getpid()) - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reading, 100)
    os.close(reading)
    os.close(writing)
    return int(told)
