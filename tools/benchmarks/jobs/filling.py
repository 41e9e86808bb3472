"""Making what a contender reads that is no cache: a copy of the objects, or another format."""

from __future__ import annotations

import time

from benchmarks.contenders import Contender, Place


def fill(contender: Contender, place: Place) -> dict[str, float]:
    """Make it, and return how long that took; torch, which any program has imported, is there already."""
    import torch  # noqa: F401

    assert contender.fill is not None
    began = time.perf_counter()
    contender.fill(place)
    return {"s": time.perf_counter() - began}
