"""`AISIterDataset` and `AISBaseIterDataset`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from aiscache import AISBaseIterDataset, AISIterDataset, Cache
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError, ObjectNotFoundError

from .test_map_dataset import METHODS, read_epoch


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = {f"o{number:03}": os.urandom(50 * number) for number in range(101)}
    dev_cluster.put_many(bucket_name, made)
    return made


def test_every_sample_goes_to_one_worker_of_one_rank(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    for shuffle in (False, True):
        names: Counter[str] = Counter()
        for rank in range(3):
            dataset = AISIterDataset(bucket, cache=tmp_path / "cache", rank=rank, world_size=3, shuffle=shuffle)
            mine = [name for name, _ in read_epoch(dataset, 2, "fork")]
            assert len(mine) == len(dataset)
            names.update(mine)
        assert names == Counter(list(objects))


def test_rank_from_the_environment(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    dataset = AISIterDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    assert [name for name, _ in dataset] == list(objects)[1::4]
    monkeypatch.setenv("RANK", "four")
    with pytest.raises(ConfigError, match="RANK='four'"):
        list(dataset)


@pytest.mark.parametrize("pair", [(0, None), (None, 2), (2, 2), (-1, 2)])
def test_a_bad_rank_is_refused_at_once(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, pair: tuple[Any, Any]
) -> None:
    with pytest.raises(ConfigError, match="rank"):
        AISIterDataset(
            dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache", rank=pair[0], world_size=pair[1]
        )


def test_shuffled_epochs_differ_and_are_the_same_for_the_same_seed(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)

    def epoch(number: int, seed: int = 0) -> list[str]:
        dataset = AISIterDataset(bucket, cache=tmp_path / "cache", shuffle=True, seed=seed)
        dataset.set_epoch(number)
        return [name for name, _ in dataset]

    assert epoch(0) == epoch(0)
    assert len({tuple(order) for order in (epoch(0), epoch(1), epoch(0, seed=1), list(objects))}) == 4
    assert sorted(epoch(1)) == list(objects)


def test_an_epoch_goes_on_where_its_state_was_taken(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dataset = AISIterDataset(bucket, cache=tmp_path / "cache", shuffle=True)
    dataset.set_epoch(3)
    whole = [name for name, _ in dataset]
    samples = iter(dataset)
    begun = [next(samples)[0] for _ in range(40)]
    resumed = AISIterDataset(bucket, cache=tmp_path / "cache", shuffle=True)
    resumed.load_state_dict(dataset.state_dict())
    assert begun + [name for name, _ in resumed] == whole
    assert [name for name, _ in resumed] == whole  # the epoch after it is a whole one
    with pytest.raises(ConfigError, match="seed"):
        AISIterDataset(bucket, cache=tmp_path / "cache", seed=9).load_state_dict(dataset.state_dict())


def test_whole_sources_per_worker(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    client = dev_cluster.client()
    buckets = []
    for letter in "abc":
        dev_cluster.put_many(f"{bucket_name}-{letter}", {f"{letter}{number}": b"" for number in range(5)})
        buckets.append(client.bucket(f"{bucket_name}-{letter}"))
    dataset = AISIterDataset(buckets, partition_sources_by_worker=True, cache=tmp_path / "cache")
    loader: Any = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    names = [name for name, _ in loader]
    assert sorted(names) == [f"{letter}{number}" for letter in "abc" for number in range(5)]
    assert names[:2] == ["a0", "b0"]  # worker 0 has a and c, worker 1 has b


class Lengths(AISBaseIterDataset):
    def __iter__(self) -> Iterator[tuple[str, int]]:
        for row in self.indices():
            yield self.manifest.name(row), len(self.read(row))


class WrittenForTheReference(AISBaseIterDataset):
    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        self._reset_iterator()
        objects, _ = self._get_worker_iter_info()
        for one in objects:
            yield one.name, one.get_reader().read_all()


@pytest.mark.parametrize(("workers", "method"), METHODS[:2])
def test_subclasses(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, workers: int, method: str
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    with Cache(tmp_path / "cache") as cache:
        lengths = read_epoch(Lengths(bucket, cache=cache), workers, method)
        assert sorted(lengths) == [(name, len(content)) for name, content in objects.items()]
        old = read_epoch(WrittenForTheReference(bucket, cache=cache), workers, method)
        assert sorted(old) == list(objects.items())


def test_an_object_that_is_gone_stops_the_stream_with_its_name(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dataset = AISIterDataset(bucket, cache=tmp_path / "cache")
    bucket.object("o050").delete()
    seen = []
    with pytest.raises(ObjectNotFoundError, match=f"{bucket_name}/o050"):
        seen.extend(name for name, _ in dataset)
    assert len(seen) < 50


def test_an_abandoned_stream_leaves_nothing_behind(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = AISIterDataset(dev_cluster.client().bucket(bucket_name), cache=tmp_path / "cache")
    samples = iter(dataset)
    assert next(samples)[0] == "o000"
    samples.close()  # type: ignore[attr-defined]


def test_progress_shows_on_a_terminal_only(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    assert len(list(AISIterDataset(bucket, show_progress=True, cache=tmp_path / "cache"))) == 101
    assert capsys.readouterr() == ("", "")


def test_transformed_objects_are_kept_apart(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    dev_cluster.add_etl("turn", "reverse")
    bucket = dev_cluster.client().bucket(bucket_name)
    turned = {name: content[::-1] for name, content in objects.items()}
    with Cache(tmp_path / "cache") as cache:
        for _ in range(2):
            assert dict(AISIterDataset(bucket, None, "turn", cache=cache)) == turned
            assert dict(AISIterDataset(bucket, cache=cache)) == objects
