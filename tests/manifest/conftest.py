"""Drafts, and a check that no descriptor is left open."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator

import pytest

from aiscache.manifest import Draft, Source
from aiscache.origin import Origin

SOURCE = Source("uuid", "http://h:1", "ais", "", "b")


@pytest.fixture
def draft() -> Callable[..., Draft]:
    """Make drafts of made-up objects."""

    def make(count: int = 10, *, size: int = 7, checksum: str = "0123456789abcdef", version: str = "1") -> Draft:
        made = Draft()
        made.begin(SOURCE)
        names = [f"dir/{number:06}" for number in range(count)]
        made.extend(names, sizes=[size] * count, checksums=[checksum] * count, versions=[version] * count)
        return made

    return make


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    before = _files()
    yield
    Origin.close_all()
    if _files() - before:
        gc.collect()
        assert not _files() - before


def _files() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if ".manifest" in name or "listings" in name or ".writing" in name:
            found.add(f"{number} {name}")
    return found
