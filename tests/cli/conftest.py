from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiscache.cache import Cache
from aiscache.keys import ObjectRef

OBJECTS = 10
OBJECT_BYTES = 50_000


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Cache]:
    """A cache with ten objects, open in this process."""
    with Cache(tmp_path / "cache", capacity="20MB") as cache:
        for number in range(OBJECTS):
            cache.put(ref(number), bytes(OBJECT_BYTES))
        yield cache


def ref(number: int) -> ObjectRef:
    return ObjectRef(cluster="test", provider="ais", bucket="bucket", name=f"{number}", size=OBJECT_BYTES)
