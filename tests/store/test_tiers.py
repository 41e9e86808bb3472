"""How tiers are divided into segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiscache.store.index import DISK
from aiscache.store.tiers import Tier


@pytest.mark.parametrize(
    ("capacity_bytes", "segment_bytes"),
    [(1 << 20, 1 << 20), (1 << 30, 16 << 20), (16 << 30, 256 << 20), (2 << 40, 256 << 20), (32 << 40, 4 << 30)],
)
def test_segments_are_neither_large_steps_nor_too_many(capacity_bytes: int, segment_bytes: int) -> None:
    assert Tier(DISK, Path("segments"), capacity_bytes).segment_bytes == segment_bytes
