"""Offline: datasets come up and are read without any request, and what is missing is an error that counts it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import aistore.sdk
import pytest

import aiscache
from aiscache import AISMapDataset, AISMultiShardStream, AISShardReader, Cache
from aiscache.cli import main
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError, NotCachedError
from aiscache.keys import ObjectRef
from tests.datasets.shard_files import shards
from tests.datasets.test_map_dataset import as_list

NOBODY = "http://127.0.0.1:1"  # an endpoint where nothing listens


@pytest.fixture
def contents(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = {f"{number:02}": bytes([number]) * 100 for number in range(20)}
    dev_cluster.put_many(bucket_name, made)
    return made


def fill(dev_cluster: DevCluster, bucket_name: str, path: Path, *, count: int | None = None) -> None:
    with Cache(path) as cache:
        cache.warm(dev_cluster.client().bucket(bucket_name), limit=count)
    dev_cluster.reset_requests()


def nothing_was_asked(dev_cluster: DevCluster) -> bool:
    return not any(dev_cluster.requests().values())


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_warm_dataset_is_read_without_a_request(
    dev_cluster: DevCluster,
    bucket_name: str,
    contents: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    workers: int,
) -> None:
    fill(dev_cluster, bucket_name, tmp_path)
    if by == "environment":
        monkeypatch.setenv("AISCACHE_OFFLINE", "1")
    with Cache(tmp_path, offline=True if by == "argument" else None) as cache:
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
        loader = aiscache.DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=as_list)
        assert {name: bytes(content) for batch in loader for name, content in batch} == contents
        assert loader.prefetcher is None
    assert nothing_was_asked(dev_cluster)


def test_what_is_missing_is_counted(
    dev_cluster: DevCluster, bucket_name: str, contents: dict[str, bytes], tmp_path: Path
) -> None:
    fill(dev_cluster, bucket_name, tmp_path, count=15)
    with Cache(tmp_path, offline=True) as cache:
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
        assert dataset[14] == ("14", contents["14"])
        for read in (lambda: dataset[15], lambda: dataset.read_many([1, 16, 17])):
            with pytest.raises(NotCachedError, match="missing are 5 of 20 objects") as raised:
                read()
            assert raised.value.missing == 5  # type: ignore[attr-defined]
            assert str(tmp_path) in str(raised.value)
        assert cache.stats().misses == 3
        refs = [dataset.manifest.ref(row) for row in range(13, 20)]
        with pytest.raises(NotCachedError, match="missing are 5 of 7 objects"):
            cache.read_many(refs)
    assert nothing_was_asked(dev_cluster)


def test_without_a_stored_listing_there_is_no_dataset(tmp_path: Path) -> None:
    bucket = aistore.sdk.Client(NOBODY).bucket("data")
    with Cache(tmp_path, offline=True) as cache:
        with pytest.raises(NotCachedError, match=f"no listing of ais://data/train/ at {NOBODY} is in the cache in"):
            AISMapDataset(bucket, {bucket: "train/"}, cache=cache)
        with pytest.raises(NotCachedError, match="no listing"):
            cache.warm(bucket, dry_run=True)
        with pytest.raises(ConfigError, match="nothing can be fetched"):
            cache.warm(bucket)


def test_shards_are_counted_and_read(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    dev_cluster.put_many(bucket_name, shards(3))
    fill(dev_cluster, bucket_name, tmp_path)
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path, offline=True) as cache:
        reader: Any = AISShardReader(bucket, cache=cache)
        assert len(reader) == len(list(reader)) > 0
        stream: Any = AISMultiShardStream([aistore.sdk.DataShard(dev_cluster.endpoint, bucket_name)], cache=cache)
        assert len(list(stream)) > 0
    assert nothing_was_asked(dev_cluster)


def test_a_dry_run_of_warm_tells_whether_all_is_here(
    dev_cluster: DevCluster,
    bucket_name: str,
    contents: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(dev_cluster, bucket_name, tmp_path, count=15)
    monkeypatch.setenv("AISCACHE_OFFLINE", "1")
    arguments = ["warm", f"ais://{bucket_name}", "--cache", str(tmp_path), "--endpoint", dev_cluster.endpoint]
    assert main([*arguments, "--dry-run"]) == 0
    assert f"15 are in {tmp_path}, 5 (500 B) are missing" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "nothing can be fetched" in capsys.readouterr().err
    assert nothing_was_asked(dev_cluster)


@pytest.mark.parametrize(("cache", "disabled"), [(False, ""), (None, "1")])
def test_offline_without_a_cache_is_a_contradiction(
    cache: bool | None, disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISCACHE_OFFLINE", "1")
    monkeypatch.setenv("AISCACHE_DISABLE", disabled)
    with pytest.raises(ConfigError, match="AISCACHE_OFFLINE is on"):
        AISMapDataset(aistore.sdk.Client(NOBODY).bucket("data"), cache=cache)


def test_it_crosses_to_other_processes(tmp_path: Path) -> None:
    with Cache(tmp_path, offline=True) as cache, pickle.loads(pickle.dumps(cache)) as copy:
        assert copy.settings.offline
        ref = ObjectRef(cluster="c", provider="ais", namespace="", bucket="b", name="n", size=1)
        with pytest.raises(NotCachedError, match="ais://b/n is not in the cache"):
            copy.read(ref)
