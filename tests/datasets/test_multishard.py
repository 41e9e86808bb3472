"""`AISMultiShardStream`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aistore.sdk import DataShard
from torch.utils.data import DataLoader

from aiscache import AISMultiShardStream, Cache, View
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError, ShardError

from .shard_files import shard
from .test_map_dataset import as_list


def sources(dev_cluster: DevCluster, bucket_name: str, images: int = 60, classes: int = 60) -> list[DataShard]:
    """Images in three shards, classes in two: the n-th image belongs to the n-th class."""
    made = {}
    for kind, count, parts in (("images", images, 3), ("classes", classes, 2)):
        files = [(f"{number:04}.{kind}", f"{kind} {number}".encode() * 200) for number in range(count)]
        each = -(-count // parts)
        for part in range(parts):
            made[f"{kind}-{part}.tar"] = shard(dict(reversed(files[part * each : (part + 1) * each])))
    dev_cluster.put_many(bucket_name, made)
    return [DataShard(dev_cluster.endpoint, bucket_name, prefix=kind) for kind in ("images", "classes")]


def read(dataset: Any, workers: int = 0, method: str | None = None) -> list[tuple[bytes, ...]]:
    loader: Any = DataLoader(
        dataset, batch_size=7, collate_fn=as_list, num_workers=workers, multiprocessing_context=method
    )
    return [tuple(map(bytes, sample)) for batch in loader for sample in batch]


def samples(count: int) -> list[tuple[bytes, ...]]:
    return [(f"images {number}".encode() * 200, f"classes {number}".encode() * 200) for number in range(count)]


@pytest.mark.parametrize("equalize", [None, "drop", "pad"])
def test_ranks_and_workers(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, equalize: str | None) -> None:
    shards = sources(dev_cluster, bucket_name, 59, 59)
    seen: Counter[tuple[bytes, ...]] = Counter()
    lengths = []
    for rank in range(3):
        dataset = AISMultiShardStream(
            shards, cache=tmp_path / "cache", rank=rank, world_size=3, equalize=equalize, content="view"
        )
        mine = read(dataset, 2, "fork")
        lengths.append(len(mine))
        seen.update(mine)
    assert (
        lengths == {None: [20, 20, 19], "drop": [19, 19, 19], "pad": [20, 20, 20]}[str(equalize) if equalize else None]
    )
    if equalize != "pad":
        assert max(seen.values()) == 1
    if equalize != "drop":
        assert seen.keys() == set(samples(59))


def test_unequal_lengths_end_with_the_shortest_and_are_told(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    dataset = AISMultiShardStream(sources(dev_cluster, bucket_name, 60, 50), cache=tmp_path / "cache")
    with pytest.warns(UserWarning, match=rf"ais://{bucket_name}/classes\* ended after 50 files"):
        assert list(dataset) == samples(50)
    assert list(AISMultiShardStream([], cache=False)) == []


def test_an_epoch_goes_on_where_its_state_was_taken(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    shards = sources(dev_cluster, bucket_name)
    dataset = AISMultiShardStream(shards, cache=tmp_path / "cache", content="view")
    stream = iter(dataset)
    begun = [next(stream) for _ in range(25)]
    assert all(type(view) is View for sample in begun for view in sample)
    again = AISMultiShardStream(shards, cache=tmp_path / "cache")
    again.load_state_dict(dataset.state_dict())
    assert list(again) == samples(60)[25:]
    assert list(again) == samples(60)
    with pytest.raises(ConfigError, match="version"):
        again.load_state_dict({})
    with pytest.raises(ConfigError, match="equalize"):
        AISMultiShardStream(shards, cache=False, equalize="even")


def test_transformed_and_damaged_shards(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    dev_cluster.add_etl("same", "echo")
    dev_cluster.put_many(bucket_name, {"0.tar": shard({"a": b"no extension", "b/c.jpg": b"2"})})
    source = DataShard(dev_cluster.endpoint, bucket_name, etl_name="same")
    plain = DataShard(dev_cluster.endpoint, bucket_name)
    dataset = AISMultiShardStream([source, plain], cache=tmp_path / "cache")
    assert list(dataset) == [(b"no extension", b"no extension"), (b"2", b"2")]
    dev_cluster.put_many(bucket_name, {"1.tar": b"x" * 1000})
    with pytest.raises(ShardError, match=rf"{bucket_name}/1\.tar"):
        list(AISMultiShardStream([plain], cache=tmp_path / "cache"))


@pytest.mark.parametrize("capacity", ["50MB", "1MB"])
def test_shuffling(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, capacity: str) -> None:
    shards = sources(dev_cluster, bucket_name, 600, 600)
    with Cache(tmp_path / "cache", capacity=capacity) as cache:

        def epoch(number: int, buffer: int = 100, **options: Any) -> list[tuple[bytes, ...]]:
            dataset = AISMultiShardStream(shards, cache=cache, shuffle=True, shuffle_buffer=buffer, **options)
            dataset.set_epoch(number)
            return read(dataset, 2, "fork")

        assert epoch(0) == epoch(0)
        orders = [epoch(0), epoch(1), epoch(0, seed=1), epoch(0, buffer=1)]
        assert len(set(map(tuple, orders))) == 4
        assert all(sorted(order) == sorted(samples(600)) for order in orders)
        assert (cache.stats().rejected > 0) == (capacity == "1MB")
