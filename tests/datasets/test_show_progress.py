"""`show_progress`: what takes time says how far it is, on a terminal only."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiscache import AISMapDataset, AISShardDataset, AISShardReader, Cache
from aiscache.devserver import DevCluster
from tests.datasets.shard_files import shards


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SHOWN: dict[str, tuple[Callable[..., Any], str]] = {
    "a listing": (AISMapDataset, "listing: "),
    "shards that are read to be counted": (AISShardDataset, "reading shards: "),
    "a length that the cluster is asked for": (lambda *a, **o: len(AISShardReader(*a, **o)), "listing shards: "),
}


@pytest.mark.parametrize("what", SHOWN)
def test_a_bar_is_shown(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    dev_cluster.put_many(bucket_name, shards(3))
    make, title = SHOWN[what]
    bucket = dev_cluster.client().bucket(bucket_name)
    for terminal, wanted, shown in ((Terminal(), True, True), (io.StringIO(), True, False), (Terminal(), False, False)):
        monkeypatch.setattr(sys, "stderr", terminal)
        with Cache(tmp_path / str((terminal.isatty(), wanted))) as cache:
            make(bucket, cache=cache, show_progress=wanted)
        assert (title in terminal.getvalue()) is shown
        assert shown or terminal.getvalue() == ""
