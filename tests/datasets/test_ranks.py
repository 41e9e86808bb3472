"""Iterable datasets over ranks and workers: who yields what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aiscache import AISIterDataset
from aiscache.devserver import DevCluster

from .shard_files import samples_of, shards
from .test_map_dataset import read_epoch


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize(("equalize", "lengths"), [(None, [8, 7, 7]), ("drop", [7, 7, 7]), ("pad", [8, 8, 8])])
def test_equal_ranks(
    dev_cluster: DevCluster,
    bucket_name: str,
    tmp_path: Path,
    partition: bool,
    equalize: str | None,
    lengths: list[int],
) -> None:
    names = [f"o{number:02}" for number in range(22)]
    dev_cluster.put_many(bucket_name, dict.fromkeys(names, b""))
    bucket = dev_cluster.client().bucket(bucket_name)
    for shuffle in (False, True):
        seen: Counter[str] = Counter()
        for rank in range(3):
            dataset = AISIterDataset(
                bucket,
                partition_sources_by_worker=partition,
                cache=tmp_path / "cache",
                rank=rank,
                world_size=3,
                equalize=equalize,
                shuffle=shuffle,
            )
            mine = [name for name, _ in read_epoch(dataset, 2, "fork")]
            assert len(mine) == len(dataset) == lengths[rank]
            seen.update(mine)
        if equalize != "pad":
            assert max(seen.values()) == 1
        if equalize != "drop":
            assert seen.keys() == set(names)


RANK = """
import json, os, sys
import torch.distributed
from aistore.sdk import Client, DataShard
from torch.utils.data import DataLoader
from aiscache import AISBatchIterDataset, AISIterDataset, AISMultiShardStream, AISShardReader, Cache

endpoint, objects, shards, path, results = sys.argv[1:]
torch.distributed.init_process_group("gloo")
client, cache = Client(endpoint), Cache(path, capacity="100MB")
datasets = {
    "iter": AISIterDataset(client.bucket(objects), cache=cache, shuffle=True),
    "batch": AISBatchIterDataset(client.bucket(objects), client, cache=cache),
    "shards": AISShardReader(client.bucket(shards), cache=cache, shuffle=True),
    "streams": AISMultiShardStream([DataShard(endpoint, shards), DataShard(endpoint, shards)], cache=cache),
}
seen = {}
for kind, dataset in datasets.items():
    for epoch in range(2):
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        loader = DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=list)
        seen[f"{kind} {epoch}"] = [repr(sample) for batch in loader for sample in batch]
with open(f"{results}-{torch.distributed.get_rank()}", "w") as file:
    json.dump(seen, file)
torch.distributed.destroy_process_group()
"""


def test_torchrun_with_two_ranks_of_two_workers(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    made = shards(5)
    objects = {f"o{number:02}": b"%d" % number for number in range(31)}
    dev_cluster.put_many(bucket_name, objects)
    dev_cluster.put_many(bucket_name + "-s", made)
    script, results = tmp_path / "train.py", tmp_path / "seen"
    script.write_text(RANK)
    arguments = [dev_cluster.endpoint, bucket_name, bucket_name + "-s", str(tmp_path / "cache"), str(results)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    dev_cluster.reset_requests()
    done = subprocess.run(
        [*torchrun, str(script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    ranks: list[dict[str, Any]] = [json.loads(Path(f"{results}-{rank}").read_text()) for rank in range(2)]
    samples = [sample for tar in made.values() for sample in samples_of(tar)]
    every = {
        "iter": objects.items(),
        "batch": objects.items(),
        "shards": samples,
        "streams": [(content, content) for _, contents in samples for content in contents.values()],
    }
    for epoch in ranks[0]:
        assert Counter(ranks[0][epoch] + ranks[1][epoch]) == Counter(map(repr, every[epoch.split()[0]]))
    assert dev_cluster.requests()["GET"] == 31 + 5  # each object and each shard left the cluster once
