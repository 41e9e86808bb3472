"""`AISShardDataset`, and the index of members that it shares."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from aiscache import AISShardDataset, AISShardReader, Cache, View
from aiscache.datasets.members import Members
from aiscache.devserver import DevCluster
from aiscache.errors import ShardError

from .shard_files import samples_of, shard, shards
from .test_map_dataset import METHODS, as_list, read_epoch, read_epochs


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = shards(9)
    dev_cluster.put_many(bucket_name, made)
    return made


@pytest.fixture
def samples(objects: dict[str, bytes]) -> list[Any]:
    return [sample for tar in objects.values() for sample in samples_of(tar)]


@pytest.mark.parametrize(("workers", "method"), METHODS[:2])
def test_samples_are_those_of_the_shard_reader(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    samples: list[Any],
    tmp_path: Path,
    workers: int,
    method: str,
) -> None:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        dev_cluster.reset_requests()
        dataset = AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
        assert len(dataset) == len(samples) == 49
        assert dev_cluster.requests()["GET"] == len(objects)  # each shard was looked into
        dev_cluster.reset_requests()
        epochs = read_epochs(dataset, workers, method)
        assert next(epochs) == samples
        assert next(epochs) == samples
        assert sum(dev_cluster.requests().values()) == 0


def test_indices(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    dataset = AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    assert [dataset[index] for index in range(49)] == list(dataset) == samples
    assert dataset[-1] == samples[-1]
    assert dataset[np.int64(7)] == dataset[torch.tensor(7)] == samples[7]
    subset = dataset[2:20:5]
    assert isinstance(subset, Subset)
    assert [subset[index] for index in range(4)] == samples[2:20:5]
    order = random.Random(1).sample(range(49), 49)
    assert dataset.__getitems__(order) == [samples[index] for index in order]
    assert dataset.sample_sizes().tolist() == [sum(map(len, contents.values())) for _, contents in samples]
    for index in (49, -50):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 49 samples"):
            dataset[index]


def test_every_sample_has_a_value_for_every_extension(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    dev_cluster.put_many(
        bucket_name, {"0.tar": shard({"a.jpg": b"1"}), "1.tar": shard({"b.cls": b"2"}), "2.tar": shard({})}
    )
    bucket = dev_cluster.client().bucket(bucket_name)
    for content in ("bytes", "view"):
        dataset = AISShardDataset(bucket, cache=tmp_path / "cache", content=content)
        names, contents = next(iter(DataLoader(dataset, batch_size=2, shuffle=False)))
        assert list(names) == ["a", "b"]
        assert [[bytes(one) for one in contents[key]] for key in ("jpg", "cls")] == [[b"1", b""], [b"", b"2"]]
        assert all(type(one) is (bytes if content == "bytes" else View) for one in contents["jpg"])


def test_views_of_a_worker_lie_in_the_trainers_mapping(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    dataset = AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache", content="view")
    found = read_epoch(dataset, 2, "fork")
    assert [bytes(contents["jpg"]) for _, contents in found] == [contents["jpg"] for _, contents in samples]
    assert all(hasattr(contents["jpg"].base, "segment") for _, contents in found if len(contents["jpg"]) >= 1024)


def test_compressed_shards(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    files = [{f"{number}.jpg": os.urandom(2000)} for number in range(4)]
    dev_cluster.put_many(bucket_name, {f"{number}.tgz": shard(one, mode="w:gz") for number, one in enumerate(files)})
    dataset = AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    assert [contents["jpg"] for _, contents in read_epoch(dataset, 1, "fork")] == [
        content for one in files for content in one.values()
    ]


def test_a_damaged_shard_names_itself(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name, {"train-004.tar": objects["train-004.tar"][:5000]})
    with pytest.raises(ShardError, match=rf"ais://{bucket_name}/train-004\.tar .*at offset \d+"):
        AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")


def test_shards_are_looked_into_once_per_machine(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, monkeypatch: Any
) -> None:
    from aiscache.datasets import shards as module

    bucket = dev_cluster.client().bucket(bucket_name)
    looked: list[str] = []

    def look(data: Any, *, shard: str) -> Any:
        looked.append(shard)
        return original(data, shard=shard)

    original = module.tar_members
    monkeypatch.setattr(module, "tar_members", look)
    with Cache(tmp_path / "cache") as cache:
        assert len(list(AISShardReader(bucket, {bucket: "train-00"}, cache=cache))) == 49
        assert len(looked) == 9
        dataset = AISShardDataset(bucket, {bucket: "train-00"}, cache=cache)
        assert len(dataset) == 49
        assert len(looked) == 9
        assert len(pickle.dumps(dataset)) < 5000
        assert pickle.loads(pickle.dumps(dataset))[48] == dataset[48]
        dev_cluster.put_many(bucket_name, {"train-009.tar": shard({"new.jpg": b"1"})})
        assert len(AISShardDataset(bucket, {bucket: "train-00"}, cache=cache)) == 50  # of a listing of its own


def index_file(path: Path) -> Path:
    (file,) = path.glob("manifests/*.members")
    return file


@pytest.mark.parametrize("place", [0, 9, 17, 40, 60, -10, -1])
def test_a_damaged_index_is_made_anew(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    samples: list[Any],
    tmp_path: Path,
    place: int,
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        assert list(AISShardDataset(bucket, cache=cache)) == samples
        file = index_file(tmp_path / "cache")
        damaged = bytearray(file.read_bytes())
        whole = bytes(damaged)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        assert list(AISShardDataset(bucket, cache=cache)) == samples
        assert len(whole) == len(damaged)
        file.write_bytes(whole[: len(whole) // 2])
        dataset = AISShardDataset(bucket, cache=cache)
        assert list(dataset) == samples
        assert file.read_bytes() == whole
        file.unlink()
        assert list(pickle.loads(pickle.dumps(dataset))) == samples


def test_processes_add_what_they_know_to_one_file(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        dataset = AISShardReader(bucket, cache=cache)
        one, other = Members(dataset.manifest), Members(dataset.manifest)
        for row, members in ((0, one), (1, other)):
            members.add(row, dataset._shards.open(row).samples)
            members.save()
        assert Members(dataset.manifest).missing() == one.missing()[:] == list(range(2, 9))
        assert Members(dataset.manifest).counts()[:2].tolist() == [5, 6]


def test_a_directory_that_cannot_be_written_costs_a_look_into_the_shards(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    samples: list[Any],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        monkeypatch.setattr(Members, "_write", refuse)
        dataset = AISShardDataset(bucket, cache=cache)
        assert read_epoch(dataset, 1, "spawn") == samples
        assert not list((tmp_path / "cache").glob("manifests/*.members"))
    assert read_epoch(AISShardDataset(bucket, cache=False), 1, "fork") == samples


def test_files_of_listings_that_are_gone_are_removed(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        AISShardDataset(bucket, cache=cache)
        before = index_file(tmp_path / "cache").name
        dev_cluster.put_many(bucket_name, {"more.tar": shard({"new.jpg": b"1"})})
        dataset = AISShardDataset(bucket, cache=cache)
        assert index_file(tmp_path / "cache").name != before
        assert len(dataset) == 50
        del dataset
        cache.clear()
        assert not list(tmp_path.glob("cache/manifests/*.m*"))


TWO_RANKS = """
import sys
from aistore.sdk import Client
from aiscache import AISShardDataset, Cache
endpoint, bucket, path = sys.argv[1:]
print("ready", flush=True); sys.stdin.readline()
print(len(AISShardDataset(Client(endpoint).bucket(bucket), cache=Cache(path, capacity="200MB"))))
"""


def test_processes_that_start_together_fetch_each_shard_once(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", TWO_RANKS, dev_cluster.endpoint, bucket_name, str(tmp_path / "cache")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen(arguments, **pipes) for _ in range(2)]
    for rank in ranks:
        assert rank.stdout.readline() == "ready\n"
    dev_cluster.reset_requests()
    for rank in ranks:
        rank.stdin.write("go\n")
        rank.stdin.flush()
    assert [int(rank.communicate(timeout=60)[0]) for rank in ranks] == [49, 49]
    assert dev_cluster.requests()["GET"] == len(objects)


def test_shuffled_batches(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    dataset = AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    loader: Any = DataLoader(dataset, batch_size=8, shuffle=True, num_workers=2, collate_fn=as_list)
    found = [sample for batch in loader for sample in batch]
    assert found != samples
    assert {contents["jpg"] for _, contents in found} == {contents["jpg"] for _, contents in samples}


def test_transformed_shards_are_kept_apart(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    dev_cluster.add_etl("same", "echo")
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        for etl in (None, "same"):
            assert list(AISShardDataset(bucket, None, etl, cache=cache)) == samples
        assert cache.stats().fetched_objects == 2 * len(objects)
