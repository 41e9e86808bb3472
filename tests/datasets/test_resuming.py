"""Going on in the middle of an epoch, with torchdata's StatefulDataLoader where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aistore.sdk import DataShard

from aiscache import (
    AISBatchIterDataset,
    AISIterDataset,
    AISMultiShardStream,
    AISShardDataset,
    AISShardReader,
)
from aiscache.devserver import DevCluster

from .shard_files import shards
from .test_map_dataset import as_list

KINDS = ("iter", "batch", "shards", "mixed shards", "streams", "by index")


def make(kind: str, cluster: DevCluster, bucket: str, cache: Any) -> Any:
    source = cluster.client().bucket(bucket)
    if kind == "iter":
        return AISIterDataset(source, cache=cache, shuffle=True)
    if kind == "batch":
        return AISBatchIterDataset(source, cache=cache)
    if kind == "shards":
        return AISShardReader(source, cache=cache)
    if kind == "mixed shards":
        return AISShardReader(source, cache=cache, shuffle=True, shuffle_buffer=7)
    if kind == "streams":
        return AISMultiShardStream([DataShard(cluster.endpoint, bucket)], cache=cache)
    return AISShardDataset(source, cache=cache)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11 under torch 2.13
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_under_the_stateful_loader(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, kind: str, workers: int
) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    dev_cluster.put_many(bucket_name, shards(6))

    def loader() -> Any:
        dataset = make(kind, dev_cluster, bucket_name, tmp_path / "cache")
        return stateful.StatefulDataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=as_list)

    whole = list(loader())
    assert whole
    first = loader()
    batches = iter(first)
    begun = [next(batches) for _ in range(len(whole) // 2)]
    state = json.loads(json.dumps(first.state_dict())) if workers == 0 else first.state_dict()
    del batches, first
    second = loader()
    second.load_state_dict(state)
    assert begun + list(second) == whole
