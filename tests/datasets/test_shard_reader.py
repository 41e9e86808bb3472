"""`AISShardReader`."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from aiscache import AISShardReader, Cache, View
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError, ShardError

from .shard_files import samples_of, shard, shards
from .test_map_dataset import read_epoch


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = shards(9)
    dev_cluster.put_many(bucket_name, made)
    return made


@pytest.fixture
def samples(objects: dict[str, bytes]) -> list[Any]:
    return [sample for tar in objects.values() for sample in samples_of(tar)]


def ordered(samples: list[Any]) -> list[Any]:
    return sorted((name, sorted(contents.items())) for name, contents in samples)


def test_keys_are_filled_as_in_aistore_pytorch(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    from aistore.pytorch import AISShardReader as Reference

    dev_cluster.put_many(
        bucket_name,
        {
            "0.tar": shard({"a.jpg": b"1", "a.cls": b"2", "b.jpg": b"3", "README": b"no extension"}),
            "1.tar": shard({"c.jpg": b"4", "c.x.txt": b"5", "d.cls": b"6"}),
        },
    )
    bucket = dev_cluster.client().bucket(bucket_name)
    found = list(AISShardReader(bucket, cache=tmp_path / "cache"))
    assert found == [sample for sample in Reference(bucket)]  # noqa: C416  (list() asks for its length, which fails)
    assert found[1] == ("b", {"jpg": b"3", "cls": b""})
    assert found[3] == ("d", {"cls": b"6", "jpg": b"", "txt": b""})
    assert pickle.loads(pickle.dumps(found)) == found
    for content, kind in (("bytes", bytes), ("view", View)):
        loader: Any = DataLoader(
            AISShardReader(bucket, {bucket: "0"}, cache=tmp_path / "cache", content=content), batch_size=2
        )
        names, contents = next(iter(loader))
        assert list(names) == ["a", "b"]
        assert [bytes(one) for one in contents["cls"]] == [b"2", b""]
        assert {type(one) for one in contents["cls"]} == {kind}


def test_one_basename_in_two_folders_is_two_samples(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    dev_cluster.put_many(bucket_name, {"0.tar": shard({"x/0.jpg": b"1", "y/0.jpg": b"2", "x/0.cls": b"3"})})
    dataset = AISShardReader(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    assert len(dataset) == 2
    assert list(dataset) == [("0", {"jpg": b"1", "cls": b"3"}), ("0", {"jpg": b"2", "cls": b""})]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_shards(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, mode: str) -> None:
    files = {"0.jpg": os.urandom(5000), "0.cls": b"1", "1.jpg": os.urandom(3000)}
    dev_cluster.put_many(bucket_name, {f"s.tar.{mode[2:]}": shard(files, mode=mode)})
    dataset = AISShardReader(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    assert len(dataset) == 2
    expected = [("0", {"jpg": files["0.jpg"], "cls": b"1"}), ("1", {"jpg": files["1.jpg"], "cls": b""})]
    assert read_epoch(dataset) == read_epoch(dataset, 1, "fork") == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_views(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    samples: list[Any],
    tmp_path: Path,
    workers: int,
) -> None:
    dataset = AISShardReader(
        dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache", content="view", rank=0, world_size=1
    )
    found = read_epoch(dataset, workers, "fork" if workers else None)
    assert all(type(view) is View for _, contents in found for view in contents.values())
    plain = [(name, {key: bytes(view) for key, view in contents.items()}) for name, contents in found]
    assert ordered(plain) == ordered(samples)
    images = [contents["jpg"] for _, contents in found if len(contents["jpg"]) >= 1024]
    assert all(hasattr(view.base, "segment") for view in images)  # in this process's own mapping


def test_a_reference_whose_segment_is_gone_reads_the_member_again(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        dataset = AISShardReader(dev_cluster.client().bucket(bucket_name), cache=cache)
        loader: Any = DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=2)
        found = []
        for sample in loader:
            found.append(tuple(sample))
            cache.clear()
        assert found == samples


def damaged(tar: bytes) -> dict[str, bytes]:
    header = bytearray(tar)
    header[512 * 2 + 10] ^= 0xFF
    return {"a header": bytes(header), "its end": tar[: len(tar) // 2 // 512 * 512 + 7], "all": b"no archive" * 100}


@pytest.mark.parametrize(("what", "workers"), [("a header", 0), ("its end", 0), ("all", 0), ("its end", 1)])
def test_a_damaged_shard_names_itself_and_the_offset(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, what: str, workers: int
) -> None:
    dev_cluster.put_many(bucket_name, {"train-003.tar": damaged(objects["train-003.tar"])[what]})
    dataset = AISShardReader(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    with pytest.raises(ShardError, match=rf"ais://{bucket_name}/train-003\.tar .*at offset \d+"):
        read_epoch(dataset, workers, "fork" if workers else None)


def test_length_is_asked_of_the_cluster_before_the_first_pass(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dataset = AISShardReader(bucket, {bucket: "train-00"}, cache=tmp_path / "cache")
    dev_cluster.reset_requests()
    assert len(dataset) == len(samples)
    assert dev_cluster.requests()["GET"] == 0
    ranks = [AISShardReader(bucket, cache=tmp_path / "cache", rank=rank, world_size=2) for rank in range(2)]
    assert sum(map(len, ranks)) == len(samples)
    for rank in ranks:
        assert len(rank) == len(list(rank))


def test_length_of_transformed_shards_is_that_of_what_is_read(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    dev_cluster.add_etl("same", "echo")
    dev_cluster.put_many(bucket_name, {"0.tar": shard({"a.jpg": b"1", "b.jpg": b"2"})})
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        assert len(AISShardReader(bucket, etl_name="same", cache=cache)) == 2
        assert cache.stats().fetched_objects == 1
        assert list(AISShardReader(bucket, etl_name="same", cache=cache))[1] == ("b", {"jpg": b"2"})
        assert cache.stats().fetched_objects == 1
        assert len(list(AISShardReader(bucket, cache=cache))) == 2
        assert cache.stats().fetched_objects == 2  # kept apart


@pytest.mark.parametrize("equalize", [None, "drop", "pad"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_and_workers(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    samples: list[Any],
    tmp_path: Path,
    equalize: str | None,
    shuffle: bool,
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    seen: Counter[bytes] = Counter()
    lengths = []
    for rank in range(2):
        dataset = AISShardReader(
            bucket, cache=tmp_path / "cache", rank=rank, world_size=2, equalize=equalize, shuffle=shuffle
        )
        mine = read_epoch(dataset, 2, "fork")
        assert len(mine) == len(dataset)
        lengths.append(len(mine))
        seen.update(contents["jpg"] for _, contents in mine)
    images = {contents["jpg"] for _, contents in samples}
    assert len(images) == 49
    assert seen.keys() <= images
    if equalize is None:
        assert seen == Counter(images)
    elif equalize == "drop":
        assert lengths == [24, 24]
        assert max(seen.values()) == 1
    else:
        assert lengths == [25, 25]
        assert seen.keys() == images


def test_equal_ranks_where_some_have_no_shard(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    dev_cluster.put_many(bucket_name, {"0.tar": shard({f"{n}.x": b"%d" % n for n in range(5)})})
    bucket = dev_cluster.client().bucket(bucket_name)

    def names(rank: int, equalize: str) -> list[str]:
        return [
            name
            for name, _ in AISShardReader(bucket, cache=tmp_path / "cache", rank=rank, world_size=3, equalize=equalize)
        ]

    assert [names(rank, "pad") for rank in range(3)] == [["0", "1"], ["2", "3"], ["4", "0"]]
    assert [names(rank, "drop") for rank in range(3)] == [["0"], ["1"], ["2"]]
    with pytest.raises(ConfigError, match="equalize"):
        AISShardReader(bucket, None, None, False, True, cache=False, equalize="pad")
    with pytest.raises(ConfigError, match="equalize='even'"):
        AISShardReader(bucket, cache=False, equalize="even")


def test_shuffling(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)

    def epoch(number: int, seed: int = 0, buffer: int = 10, cache: Any = tmp_path / "cache") -> list[bytes]:
        dataset = AISShardReader(bucket, cache=cache, shuffle=True, seed=seed, shuffle_buffer=buffer)
        dataset.set_epoch(number)
        return [contents["jpg"] for _, contents in dataset]

    assert epoch(0) == epoch(0) == epoch(0, cache=False)
    orders = [epoch(0), epoch(1), epoch(0, seed=1), epoch(0, buffer=1), [one["jpg"] for _, one in samples]]
    assert len({tuple(order) for order in orders}) == 5
    assert len({frozenset(order) for order in orders}) == 1


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "shuffle_buffer": 8}, {"equalize": "drop"}])
def test_an_epoch_goes_on_where_its_state_was_taken(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, options: dict[str, Any]
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dataset = AISShardReader(bucket, cache=tmp_path / "cache", **options)
    whole = list(dataset)
    for begun in (0, 3, 20, len(whole)):
        stream = iter(dataset)
        start = [next(stream) for _ in range(begun)]
        again = AISShardReader(bucket, cache=tmp_path / "cache", **options)
        again.load_state_dict(dataset.state_dict() if begun else again.state_dict())
        assert start + list(again) == whole
        assert list(again) == whole


def test_a_cache_without_room_still_serves(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], samples: list[Any], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    for cache in (Cache(tmp_path / "cache", capacity="5MB"), False):
        dataset = AISShardReader(bucket, cache=cache)
        assert ordered(read_epoch(dataset, 2, "fork")) == ordered(samples)
        assert list(dataset) == samples


def test_progress_and_whole_sources_per_worker(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name + "-b", {"z.tar": shard({"z.jpg": b"1"})})
    client = dev_cluster.client()
    both = [client.bucket(bucket_name), client.bucket(bucket_name + "-b")]
    dataset = AISShardReader(both, None, None, True, True, cache=tmp_path / "cache")
    assert len(dataset) == 50
    loader: Any = DataLoader(dataset, batch_size=None, num_workers=2)
    names = [name for name, _ in loader]
    assert names[:2] == ["0000", "z"]
    assert len(names) == 50


def test_an_abandoned_stream_leaves_nothing_behind(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    reader = AISShardReader(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    stream = iter(reader)
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.enumerate() == [threading.main_thread()]  # none that reads ahead
    assert next(iter(reader)) == first


RESIDENT = """
import sys
from aistore.sdk import Client
from aiscache import AISShardReader, Cache
def own():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
endpoint, bucket, path, content = sys.argv[1:]
dataset = AISShardReader(Client(endpoint).bucket(bucket), cache=Cache(path, capacity="2GB"), content=content)
before, most, total = own(), 0, 0
for _, contents in dataset:
    total += sum(map(len, contents.values()))
    most = max(most, own())
print(total, most - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("content", ["bytes", "view"])
def test_a_shard_of_a_gigabyte_needs_no_memory_of_its_own(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, content: str
) -> None:
    import subprocess
    import sys

    large = io.BytesIO()
    with tarfile.open(fileobj=large, mode="w") as tar:
        for number in range(1000):
            info = tarfile.TarInfo(f"{number:04}.bin")
            info.size = 1_000_000
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    dev_cluster.put_many(bucket_name, {"large.tar": large.getvalue()})
    arguments = [dev_cluster.endpoint, bucket_name, str(tmp_path / "cache"), content]
    for _ in ("cold", "warm"):
        done = subprocess.run([sys.executable, "-c", RESIDENT, *arguments], capture_output=True, text=True, check=True)
        total, grown_kib = map(int, done.stdout.split())
        assert total == 1_000_000_000
        assert grown_kib < 50_000
