"""`AISMapDataset` and `AISBaseMapDataset`."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from aiscache import AISBaseMapDataset, AISMapDataset, Cache, View
from aiscache.devserver import DevCluster
from aiscache.errors import (
    BucketNotFoundError,
    ConfigError,
    EtlNotFoundError,
    ManifestError,
    ObjectNotFoundError,
    UnreachableError,
)

METHODS = [(0, None), (2, "fork"), (2, "spawn"), (2, "forkserver")]


def as_list(batch: list[Any]) -> list[Any]:
    return batch


def read_epochs(dataset: Any, workers: int, method: str | None) -> Iterator[list[Any]]:
    options = {"num_workers": workers, "multiprocessing_context": method, "persistent_workers": workers > 0}
    loader: Any = DataLoader(dataset, collate_fn=as_list, batch_size=16, **options)
    while True:
        yield [sample for batch in loader for sample in batch]


def read_epoch(dataset: Any, workers: int = 0, method: str | None = None, **options: Any) -> list[Any]:
    loader: Any = DataLoader(
        dataset, num_workers=workers, multiprocessing_context=method, collate_fn=as_list, batch_size=16, **options
    )
    return [sample for batch in loader for sample in batch]


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = {f"dir{number % 3}/o{number:03}": os.urandom(100 * number) for number in range(60)}
    dev_cluster.put_many(bucket_name, made)
    return dict(sorted(made.items()))


def test_indices(dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path) -> None:
    items = list(objects.items())
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    assert dataset[0] == items[0]
    assert dataset[-1] == items[-1]
    assert dataset[np.int64(7)] == dataset[torch.tensor(7)] == items[7]
    subset = dataset[2:8:2]
    assert isinstance(subset, Subset)
    assert [subset[index] for index in range(3)] == items[2:8:2]
    assert list(dataset) == items
    for index in (60, -61):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 60 objects"):
            dataset[index]
    with pytest.raises(TypeError):
        dataset["o1"]


def test_views(dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dataset = AISMapDataset(bucket, cache=tmp_path / "cache", content="view")
    batch = dataset.__getitems__(range(60))
    assert [(name, bytes(view)) for name, view in batch] == list(objects.items())
    assert all(type(view) is View and not view.flags.writeable for _, view in batch)
    names, views = next(iter(DataLoader(dataset, batch_size=60)))
    assert [len(view) for view in views] == [len(content) for content in objects.values()]
    assert list(names) == list(objects)
    with pytest.raises(ConfigError, match="content='tensor'"):
        AISMapDataset(bucket, cache=tmp_path / "cache", content="tensor")


def test_prefixes_groups_and_lists_of_sources(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    client = dev_cluster.client()
    dev_cluster.put_many(bucket_name + "-b", {"z": b"last"})
    first, second = client.bucket(bucket_name), client.bucket(bucket_name + "-b")
    group = first.objects(obj_names=["dir1/o001", "dir0/o000"])

    def names(*arguments: Any) -> list[str]:
        return [name for name, _ in AISMapDataset(*arguments, cache=tmp_path / "cache")]

    assert names(first, {first: "dir1/"}) == [name for name in objects if name.startswith("dir1/")]
    assert names(first, {first: ["dir2/o002", "dir0/o000"]}) == ["dir2/o002", "dir0/o000"]
    assert names([first, second], {first: "dir2/o05"}) == ["dir2/o050", "dir2/o053", "dir2/o056", "dir2/o059", "z"]
    assert names(group) == ["dir1/o001", "dir0/o000"]
    assert names([second, group]) == ["z", "dir1/o001", "dir0/o000"]


def test_sdk_objects(dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    listed = dataset.get_obj_list()
    assert [(o.name, o.props_cached.size, o.bucket_name) for o in listed] == [
        (name, len(content), bucket_name) for name, content in objects.items()
    ]
    assert listed[5].get_reader().read_all() == objects[listed[5].name]


def test_an_etl_has_its_own_objects(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    dev_cluster.put_many(bucket_name, {"a": b"alpha"})
    dev_cluster.add_etl("upper", "upper")
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        for _ in range(2):
            assert AISMapDataset(bucket, {}, "upper", cache=cache)[0] == ("a", b"ALPHA")
            assert AISMapDataset(bucket, cache=cache)[0] == ("a", b"alpha")
        with pytest.raises(EtlNotFoundError, match="'absent'"):
            AISMapDataset(bucket, etl_name="absent", cache=cache)[0]


class Lengths(AISBaseMapDataset):
    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source, **options)
        self.unit = 100

    def __getitem__(self, index: int) -> tuple[str, int]:
        row = self.position(index)
        return self.manifest.name(row), len(self.read(row)) // self.unit


class Upper(AISMapDataset):
    def __getitem__(self, index: int) -> str:
        return str(super().__getitem__(index)[0]).upper()

    def __getitems__(self, indices: list[int]) -> list[str]:
        return [self[index] for index in indices]


@pytest.mark.parametrize(("workers", "method"), METHODS[:2])
def test_subclasses(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, workers: int, method: str
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        lengths = read_epoch(Lengths(bucket, cache=cache), workers, method)
        assert lengths == [(name, len(content) // 100) for name, content in objects.items()]
        assert read_epoch(Upper(bucket, cache=cache), workers, method) == [name.upper() for name in objects]


def test_a_batch_of_a_subclass_is_fetched_once_although_the_cache_is_full(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    for cache in (Cache(tmp_path / "tiny", capacity="180kB"), False):
        dataset = Lengths(bucket, cache=cache)
        dev_cluster.reset_requests()
        assert len(dataset.__getitems__(list(range(30, 60)))) == 30
        assert dev_cluster.requests()["GET"] == 30


def test_without_a_cache_each_read_is_a_request(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    for options in ({"cache": False}, {}):
        dataset = AISMapDataset(bucket, **options)
        assert dataset.cache is None
        dev_cluster.reset_requests()
        assert read_epoch(dataset, 2, "fork") == read_epoch(dataset) == list(objects.items())
        assert dev_cluster.requests()["GET"] == 2 * len(objects)
        monkeypatch.setenv("AISCACHE_DISABLE", "1")


def test_what_crosses_to_a_worker_is_small_and_holds_no_listing(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    dev_cluster.generate(bucket_name, 20_000, 10)
    client = dev_cluster.client()
    sources = [client.bucket(bucket_name), client.bucket(bucket_name).objects(obj_names=["00000001"] * 1000)]
    dataset = AISMapDataset(sources, cache=tmp_path / "cache")
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 10_000
    copy = pickle.loads(pickled)
    assert len(copy) == 21_000
    assert copy[20_500] == dataset[1]
    assert copy.manifest is dataset.manifest  # one mapping in a process


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_objects(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    dev_cluster.generate(bucket_name, 1_000_000, 10)
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        first = AISMapDataset(bucket, cache=cache)
        del first
        began = time.perf_counter()
        dataset = AISMapDataset(bucket, cache=cache, max_listing_age_s=600)
        took_s = time.perf_counter() - began
        assert len(dataset) == 1_000_000
        assert len(pickle.dumps(dataset)) < 10_000
        assert dataset[999_999][0] == "00999999"
        assert took_s < 0.5


def test_what_was_put_since_is_seen_by_a_new_dataset(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dev_cluster.put_many(bucket_name, {"a": b"1"})
    with Cache(tmp_path / "cache") as cache:
        old = AISMapDataset(bucket, cache=cache)
        assert list(old) == [("a", b"1")]
        dev_cluster.put_many(bucket_name, {"a": b"2", "b": b"3"})
        assert list(AISMapDataset(bucket, cache=cache)) == [("a", b"2"), ("b", b"3")]
        assert len(old) == 1
        assert len(AISMapDataset(bucket, cache=cache, max_listing_age_s=60)) == 2


def test_a_stored_listing_tells_the_cache_which_cluster_to_ask(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dev_cluster.put_many(bucket_name, {"a": b"1"})
    with Cache(tmp_path / "cache") as cache:
        AISMapDataset(bucket, cache=cache)
        monkeypatch.setattr("aiscache.origin.origin._registry", {})  # as in a process that has just started
        dev_cluster.reset_requests()
        dataset = AISMapDataset(bucket, cache=cache, max_listing_age_s=60)
        assert sum(dev_cluster.requests().values()) == 0
        assert bytes(cache.read(dataset.manifest.ref(0))) == b"1"


def test_a_listing_that_shrank_is_told(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dev_cluster.generate(bucket_name, 100, 10)
    with Cache(tmp_path / "cache") as cache:
        AISMapDataset(bucket, cache=cache)
        dev_cluster.fault(bucket_name, method="LIST", list_drop=30)
        with pytest.raises(ManifestError, match="70 objects, it had 100"):
            AISMapDataset(bucket, cache=cache, on_shrink="error")
        with pytest.warns(UserWarning, match="70 objects, it had 100"):
            AISMapDataset(bucket, cache=cache)
        dev_cluster.clear_faults()


def test_missing_things_name_themselves(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    client = dev_cluster.client()
    with Cache(tmp_path / "cache") as cache:
        with pytest.raises(BucketNotFoundError, match=bucket_name):
            AISMapDataset(client.bucket(bucket_name), cache=cache)
        dev_cluster.put_many(bucket_name, {"a": b"1"})
        with pytest.raises(ObjectNotFoundError, match=f"{bucket_name}/nope"):
            AISMapDataset(client.bucket(bucket_name).objects(obj_names=["a", "nope"]), cache=cache)
        with pytest.raises(ConfigError, match="ais_source_list must be provided"):
            AISMapDataset(cache=cache)
        with pytest.raises(ConfigError, match="no AISSource"):
            AISMapDataset("ais://bucket", cache=cache)


def test_an_unreachable_cluster_is_an_error_that_names_it(tmp_path: Path) -> None:
    from aistore.sdk import Client
    from aistore.sdk.retry_config import RetryConfig
    from tenacity import Retrying, stop_after_attempt
    from urllib3.util.retry import Retry

    patience = RetryConfig(http_retry=Retry(total=0), network_retry=Retrying(stop=stop_after_attempt(1)))
    client = Client("http://127.0.0.1:9", retry_config=patience)
    with Cache(tmp_path / "cache") as cache, pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        AISMapDataset(client.bucket("b"), cache=cache)


def test_a_token_is_used_in_every_process(tmp_path: Path) -> None:
    with DevCluster(targets=2, token="sesame") as cluster, Cache(tmp_path / "cache") as cache:
        cluster.put_many("b", {f"o{number}": b"x" for number in range(10)})
        dataset = AISMapDataset(cluster.client().bucket("b"), cache=cache)
        assert len(read_epoch(dataset, 1, "spawn")) == 10
        assert cluster.requests()["GET"] == 10
        assert "sesame" not in repr(vars(dataset))


TWO_JOBS = """
import random, sys, torch
from aistore.sdk import Client
from torch.utils.data import DataLoader
from aiscache import AISMapDataset, Cache
endpoint, bucket, path, seed = sys.argv[1:]
torch.manual_seed(int(seed))
dataset = AISMapDataset(Client(endpoint).bucket(bucket), cache=Cache(path, capacity="200MB"))
print("ready", flush=True); sys.stdin.readline()
loader = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2, collate_fn=list)
print(sum(len(content) for batch in loader for _, content in batch))
"""


def test_two_jobs_with_two_workers_each_fetch_each_object_once(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    generated = dev_cluster.generate(bucket_name, 600, (20_000, 60_000), seed=5)
    arguments = [sys.executable, "-c", TWO_JOBS, dev_cluster.endpoint, bucket_name, str(tmp_path / "cache")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([*arguments, seed], **pipes) for seed in ("1", "2")]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    dev_cluster.reset_requests()
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    total = sum(map(generated.size, generated))
    assert [int(job.communicate(timeout=100)[0]) for job in jobs] == [total, total]
    assert dev_cluster.requests()["GET"] == 600


def test_half_the_capacity_gives_half_the_hits_and_is_never_exceeded(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    count, size = 600, 100_000
    dev_cluster.generate(bucket_name, count, (9 * size // 10, 11 * size // 10), seed=2)
    path = tmp_path / "cache"
    with Cache(path, capacity=count * size // 2) as cache:
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
        ratios = []
        for _ in range(3):
            before, seen = cache.stats(), []
            loader: Any = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2, collate_fn=as_list)
            for batch in loader:
                seen += [name for name, _ in batch]
                used = sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
                assert used <= count * size // 2
            assert len(set(seen)) == count
            ratios.append((cache.stats() - before).hit_ratio)
        assert ratios[0] == 0.0
        assert ratios[1:] == pytest.approx([0.5, 0.5], abs=0.015)
