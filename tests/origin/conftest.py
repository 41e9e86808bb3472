"""Origins that try again quickly, and a check that nothing is left open."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from aiscache.keys import ObjectRef
from aiscache.origin import Origin, OriginSettings, RetryPolicy

QUICK = RetryPolicy(
    status_retries=2,
    backoff_s=0.02,
    network_attempts=3,
    network_waits_s=((0.01, 0.02),),
)


@pytest.fixture
def origin_at() -> Iterator[Callable[..., Origin]]:
    """Make origins with short timeouts and waits; all are closed at the end."""
    made: list[Origin] = []

    def make(endpoint: str, **settings: object) -> Origin:
        defaults: dict[str, object] = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "retry": QUICK}
        made.append(Origin(OriginSettings(endpoint=endpoint, **{**defaults, **settings})))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for origin in made:
        origin.close()


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """No descriptor and no thread outlives a test."""
    descriptors, threads = _descriptors(), threading.active_count()
    yield
    Origin.close_all()
    assert threading.active_count() <= threads
    if _descriptors() - descriptors:
        gc.collect()
        assert not _descriptors() - descriptors


def _descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if name.startswith("socket:") or "memfd" in name or "/tmp" in name:
            found.add(f"{number} {name}")
    return found


@pytest.fixture
def ref() -> Callable[..., ObjectRef]:
    """Make refs of a bucket `b`."""

    def make(name: str = "x", **fields: object) -> ObjectRef:
        return ObjectRef(cluster="u", provider="ais", bucket="b", name=name, **fields)  # type: ignore[arg-type]

    return make
