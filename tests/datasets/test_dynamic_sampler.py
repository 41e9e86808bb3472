"""`DynamicBatchSampler`."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from aiscache import AISMapDataset, AISShardDataset, DynamicBatchSampler, PrefetchSampler
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError

from .shard_files import shards
from .test_map_dataset import as_list

MOST = 1000


@pytest.fixture
def sizes(dev_cluster: DevCluster, bucket_name: str) -> list[int]:
    chance = random.Random(3)
    made = [chance.choice([0, 1, 99, 100, 400, 500, 900, MOST, MOST + 1, 3000]) for _ in range(300)]
    dev_cluster.put_many(bucket_name, {f"o{number:03}": bytes(size) for number, size in enumerate(made)})
    return made


def test_batches_are_those_of_aistore_pytorch(
    dev_cluster: DevCluster, bucket_name: str, sizes: list[int], tmp_path: Path
) -> None:
    from aistore.pytorch import AISMapDataset as ReferenceDataset
    from aistore.pytorch import DynamicBatchSampler as Reference

    bucket = dev_cluster.client().bucket(bucket_name)
    dataset, reference = AISMapDataset(bucket, cache=tmp_path / "cache"), ReferenceDataset(bucket)
    for options in (
        {},
        {"drop_last": True},
        {"drop_last": True, "saturation_factor": 0.0},
        {"allow_oversized_samples": True},
        {"shuffle": True},
        {"shuffle": True, "allow_oversized_samples": True, "drop_last": True, "saturation_factor": 1.0},
    ):
        ours, theirs = DynamicBatchSampler(dataset, MOST, **options), Reference(reference, MOST, **options)
        for epoch in range(3):
            torch.manual_seed(epoch)
            batches = list(iter(ours))
            torch.manual_seed(epoch)
            assert batches == list(iter(theirs))
        assert list(DynamicBatchSampler(reference, 1e9)) == list(iter(Reference(reference, 1e9)))


def test_length_is_the_number_of_batches(
    dev_cluster: DevCluster, bucket_name: str, sizes: list[int], tmp_path: Path
) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    for shuffle in (False, True):
        sampler = DynamicBatchSampler(dataset, MOST, shuffle=shuffle)
        loader: Any = DataLoader(dataset, batch_sampler=sampler, collate_fn=as_list)
        lengths = set()
        for _ in range(6):
            length = len(loader)
            batches = 0
            for batch in loader:
                assert sum(len(content) for _, content in batch) <= MOST
                assert len(loader) == length  # also while it is under way
                batches += 1
            assert batches == length
            lengths.add(length)
        assert (len(lengths) > 1) == shuffle
    stopped = iter(sampler)
    next(stopped)
    assert len(list(sampler)) != 1


def test_subsets_chains_shards_and_prefetching(
    dev_cluster: DevCluster, bucket_name: str, sizes: list[int], tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name + "-s", shards(2))
    client = dev_cluster.client()
    dataset = AISMapDataset(client.bucket(bucket_name), cache=tmp_path / "cache")
    part = Subset(dataset, range(200, 100, -2))
    for source in (part, ConcatDataset([part, dataset]), Subset(part, [3, 1, 2])):
        batches = list(DynamicBatchSampler(source, MOST))
        assert [index for batch in batches for index in batch] == [
            index for index in range(len(source)) if 0 < len(source[index][1]) <= MOST
        ]
        assert all(sum(len(source[index][1]) for index in batch) <= MOST for batch in batches)
    by_index = AISShardDataset(client.bucket(bucket_name + "-s"), cache=tmp_path / "cache")
    batches = list(DynamicBatchSampler(by_index, 4000))
    assert sorted(index for batch in batches for index in batch) == list(range(11))
    assert all(sum(len(one) for index in batch for one in by_index[index][1].values()) <= 4000 for batch in batches)
    sampler = DynamicBatchSampler(dataset, MOST)
    loader: Any = DataLoader(
        dataset, batch_sampler=PrefetchSampler(sampler, dataset, processes=1), collate_fn=as_list, num_workers=1
    )
    assert len(loader) == len(sampler)
    assert [[name for name, _ in batch] for batch in loader] == [
        [dataset.manifest.name(index) for index in batch] for batch in sampler
    ]


def test_what_is_left_out_is_told_once(
    dev_cluster: DevCluster, bucket_name: str, sizes: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    sampler = DynamicBatchSampler(dataset, MOST)
    with caplog.at_level(logging.WARNING, "aiscache"):
        assert list(sampler) == list(sampler)
    large = sum(size > MOST for size in sizes)
    assert [one.getMessage() for one in caplog.records] == [
        f"{sizes.count(0)} samples of 0 bytes and {large} of more than {MOST} bytes (max_batch_size) are in no batch"
    ]


def test_bad_arguments(dev_cluster: DevCluster, bucket_name: str, sizes: list[int], tmp_path: Path) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="saturation_factor"):
        DynamicBatchSampler(dataset, 1, saturation_factor=2)
    with pytest.raises(ConfigError, match="max_batch_size"):
        DynamicBatchSampler(dataset, 0)
    with pytest.raises(ConfigError, match="does not tell the sizes"):
        DynamicBatchSampler([1, 2, 3], 10)
