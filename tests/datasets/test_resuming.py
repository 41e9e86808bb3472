"""Going on in the middle of an epoch: with torchdata's StatefulDataLoader, and with torch's own DataLoader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from aistore.sdk import DataShard
from torch.utils.data import DataLoader

from aiscache import (
    AISBaseIterDataset,
    AISBatchIterDataset,
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISShardDataset,
    AISShardReader,
    Cache,
    DynamicBatchSampler,
    PrefetchSampler,
)
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError

from .shard_files import shard, shards
from .test_map_dataset import as_list

BATCH = 3


class Names(AISBaseIterDataset):
    """As a user writes it."""

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((self.manifest.name(row), len(view)) for row, view in self.read_ahead())


class Rows(AISBaseIterDataset):
    def __iter__(self) -> Iterator[int]:
        yield from self.indices()


MIXED = {"iter", "mixed shards", "equal shards", "mixed streams", "rows"}
STREAMS = [*sorted(MIXED), "sources", "batch", "shards", "streams", "names"]


def make(kind: str, cluster: DevCluster, bucket: str, cache: Any) -> Any:
    client = cluster.client()
    source = client.bucket(bucket)
    makers: dict[str, Any] = {
        "iter": lambda: AISIterDataset(source, cache=cache, shuffle=True),
        "sources": lambda: AISIterDataset(
            [source, client.bucket(f"{bucket}-b")], partition_sources_by_worker=True, cache=cache
        ),
        "batch": lambda: AISBatchIterDataset(source, cache=cache, max_batch_size=5),
        "shards": lambda: AISShardReader(source, cache=cache),
        "mixed shards": lambda: AISShardReader(source, cache=cache, shuffle=True, shuffle_buffer=7),
        "equal shards": lambda: AISShardReader(
            source, cache=cache, shuffle=True, rank=1, world_size=2, equalize="drop"
        ),
        "streams": lambda: AISMultiShardStream([DataShard(cluster.endpoint, bucket)], cache=cache),
        "mixed streams": lambda: AISMultiShardStream(
            [DataShard(cluster.endpoint, bucket)], cache=cache, shuffle=True, shuffle_buffer=9
        ),
        "names": lambda: Names(source, cache=cache),
        "rows": lambda: Rows(source, cache=cache, shuffle=True, seed=3),
        "by index": lambda: AISShardDataset(source, cache=cache),
    }
    return makers[kind]()


def choose(dataset: Any, epoch: int) -> None:
    """Choose an epoch, of a dataset that has any."""
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        yield cache


@pytest.fixture
def bucket(dev_cluster: DevCluster, bucket_name: str) -> str:
    """Six shards of 5 or 6 samples, one larger than all others together; and another bucket, for uneven workers."""
    made = shards(6) | {"train-001b.tar": shard({f"{n:02}.jpg": b"%d" % n for n in range(40)})}
    dev_cluster.put_many(bucket_name, made)
    dev_cluster.put_many(f"{bucket_name}-b", {f"o{number}": b"%d" % number for number in range(20)})
    return bucket_name


def loaded(dataset: Any, workers: int, persistent: bool = False, method: str | None = None) -> Any:
    return DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method,
        collate_fn=as_list,
    )


def contents(batches: Iterable[list[Any]]) -> list[list[Any]]:
    """Samples without the empty values of extensions: a worker that persists knows more of those."""
    return [
        [
            (sample[0], {key: value for key, value in sample[1].items() if value})
            if isinstance(sample, tuple) and isinstance(sample[-1], dict)
            else sample
            for sample in batch
        ]
        for batch in batches
    ]


def cases() -> Iterator[Any]:
    for kind in STREAMS:
        for workers, persistent in ((0, False), (2, True), (1, False), (2, False), (3, False)):
            usual = (workers, persistent) in {(0, False), (2, True)} or (workers == 2 and kind in {"sources", "names"})
            yield pytest.param(kind, workers, persistent, marks=[] if usual else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "workers", "persistent"), list(cases()))
def test_under_torchs_own_loader(
    dev_cluster: DevCluster, bucket: str, cache: Cache, kind: str, workers: int, persistent: bool
) -> None:
    dataset = make(kind, dev_cluster, bucket, cache)
    choose(dataset, 1)
    loader = loaded(dataset, workers, persistent)
    whole = contents(loader)
    choose(dataset, 2)
    following = contents(loader)
    assert (following == whole) == (kind not in MIXED)
    for batches in (len(whole) // 2, len(whole) - 1):
        choose(dataset, 1)
        begun = contents(islice(iter(loader), batches))
        text = json.dumps(dataset.state_dict(loader, batches=batches))
        assert len(text) < 200
        if workers == 0:
            assert dataset.state_dict() == json.loads(text)
        again = make(kind, dev_cluster, bucket, cache)
        again.load_state_dict(json.loads(text))
        assert again.state_dict() == json.loads(text)
        choose(again, 1)
        resumed = loaded(again, workers, persistent)
        assert begun + contents(resumed) == whole
        assert contents(resumed) == whole  # where none is chosen, the same epoch again, from its start
        choose(again, 2)
        assert contents(resumed) == following


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_with_workers_that_share_no_memory_of_their_trainer(
    dev_cluster: DevCluster, bucket: str, cache: Cache, method: str
) -> None:
    dataset = AISIterDataset(dev_cluster.client().bucket(bucket), cache=cache, shuffle=True)
    choose(dataset, 4)
    whole = list(loaded(dataset, 1))
    choose(dataset, 5)
    following = list(loaded(dataset, 1))
    choose(dataset, 4)
    dataset.load_state_dict(dataset.state_dict(loaded(dataset, 1), batches=1))
    loader = loaded(dataset, 1, persistent=True, method=method)
    assert list(loader) == whole[1:]
    choose(dataset, 5)
    assert list(loader) == following


def test_a_state_from_the_middle_of_a_resumed_epoch(dev_cluster: DevCluster, bucket: str, cache: Cache) -> None:
    dataset = make("sources", dev_cluster, bucket, cache)
    whole = list(loaded(dataset, 2))
    loader = loaded(dataset, 2, persistent=True)
    for batches in range(len(whole)):
        dataset.load_state_dict(dataset.state_dict(loader, batches=batches))
        assert next(iter(loader)) == whole[batches]


def test_a_place_is_gone_on_from_once_also_if_all_epochs_have_the_same_seed(
    dev_cluster: DevCluster, bucket: str, cache: Cache
) -> None:
    dataset = make("iter", dev_cluster, bucket, cache)
    loader = loaded(dataset, 2)
    whole = list(loader)
    dataset.load_state_dict(dataset.state_dict(loader, batches=1))
    for expected in (whole[1:], whole, whole):
        torch.manual_seed(5)
        assert list(loader) == expected


def test_an_epoch_that_was_begun_and_left_is_whole_the_next_time(
    dev_cluster: DevCluster, bucket: str, cache: Cache
) -> None:
    dataset = make("iter", dev_cluster, bucket, cache)
    loader = loaded(dataset, 2)
    whole = list(loader)
    dataset.load_state_dict(dataset.state_dict(loader, batches=2))
    assert next(iter(loader)) == whole[2]
    assert list(loader) == whole


def test_what_cannot_be_gone_on_from_is_told(dev_cluster: DevCluster, bucket: str, cache: Cache) -> None:
    dataset = make("iter", dev_cluster, bucket, cache)
    loader = loaded(dataset, 2)
    state = dataset.state_dict(loader, batches=1)
    next(iter(loader))
    with pytest.raises(ConfigError, match=r"2 workers of a DataLoader.*state_dict\(loader, batches=n\)"):
        dataset.state_dict()
    with pytest.raises(ConfigError, match="both the loader and the number"):
        dataset.state_dict(loader)
    with pytest.raises(ConfigError, match="batches=900 must be from 0"):
        dataset.state_dict(loader, batches=900)
    for damaged in ({**state, "seed": 9}, {**state, "ranks": 2}, {**state, "version": 0}, {}):
        with pytest.raises(ConfigError, match="does not fit a dataset of"):
            dataset.load_state_dict(damaged)
    for damaged in ({**state, "turns": [[0]]}, {**state, "turns": [[0, 1]]}, {**state, "turns": []}):
        with pytest.raises(ConfigError, match=r"state .* is"):
            dataset.load_state_dict(damaged)
    dataset.load_state_dict(state)
    with pytest.raises(ConfigError, match="taken with 2 workers and cannot be gone on from with 1"):
        next(iter(loaded(dataset, 0)))
    lenient = AISBatchIterDataset(dev_cluster.client().bucket(bucket), cache=cache, cont_on_err=True)
    with pytest.raises(ConfigError, match="cont_on_err"):
        lenient.state_dict(loader, batches=1)


def stateful(*arguments: Any, **options: Any) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(*arguments, collate_fn=as_list, **options)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11 under torch 2.13
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", [*STREAMS, "by index"])
def test_under_the_stateful_loader(dev_cluster: DevCluster, bucket: str, cache: Cache, kind: str, workers: int) -> None:
    def loader() -> Any:
        return stateful(make(kind, dev_cluster, bucket, cache), batch_size=BATCH, num_workers=workers)

    whole = contents(loader())
    first = loader()
    batches = iter(first)
    begun = contents(islice(batches, len(whole) // 2))
    state = json.loads(json.dumps(first.state_dict())) if workers == 0 else first.state_dict()
    assert begun + contents(batches) == whole
    ended = first.state_dict()
    del batches, first
    second = loader()
    second.load_state_dict(state)
    assert begun + contents(second) == whole
    assert contents(second) == whole
    if kind != "rows":  # its iterator is a generator, and begins an epoch when its first sample is asked for
        third = loader()
        third.load_state_dict(ended)
        assert contents(third) == whole


def indexed(cluster: DevCluster, bucket: str, cache: Any) -> AISMapDataset:
    return AISMapDataset(cluster.client().bucket(f"{bucket}-b"), cache=cache)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_by_bytes_under_the_stateful_loader(
    dev_cluster: DevCluster, bucket: str, cache: Cache, workers: int, shuffle: bool
) -> None:
    dataset = indexed(dev_cluster, bucket, cache)

    def loader() -> Any:
        sampler = DynamicBatchSampler(dataset, 5, shuffle=shuffle)
        return stateful(dataset, batch_sampler=sampler, num_workers=workers)

    first = loader()
    batches = iter(first)
    begun = list(islice(batches, 3))
    state = json.loads(json.dumps(first.state_dict()))
    rest = list(batches)
    assert len({sample for batch in begun + rest for sample in batch}) == 20
    second = loader()
    second.load_state_dict(state)
    assert list(second) == rest


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_by_bytes_go_on_with_another_number_of_workers(
    dev_cluster: DevCluster, bucket: str, cache: Cache, shuffle: bool, prefetch: bool
) -> None:
    dataset = indexed(dev_cluster, bucket, cache)

    def loader(sampler: DynamicBatchSampler, workers: int) -> Any:
        ahead = PrefetchSampler(sampler, dataset, processes=1) if prefetch else sampler
        return DataLoader(dataset, batch_sampler=ahead, num_workers=workers, collate_fn=as_list)

    for workers, others in ((0, 2), (2, 0), (1, 2)):
        first = DynamicBatchSampler(dataset, 5, shuffle=shuffle)
        batches = iter(loader(first, workers))
        begun = list(islice(batches, 3))
        state = json.loads(json.dumps(first.state_dict(batches=3)))
        rest = list(batches)
        assert len({sample for batch in begun + rest for sample in batch}) == 20
        second = DynamicBatchSampler(dataset, 5, shuffle=shuffle)
        second.load_state_dict(state)
        resumed = loader(second, others)
        assert list(resumed) == rest
        assert len(resumed) == len(second)
        assert (list(resumed) == begun + rest) == (not shuffle)


def test_a_prefetching_sampler_of_batches_by_bytes_has_a_state(
    dev_cluster: DevCluster, bucket: str, cache: Cache
) -> None:
    dataset = indexed(dev_cluster, bucket, cache)

    def sampler() -> PrefetchSampler:
        return PrefetchSampler(DynamicBatchSampler(dataset, 5, shuffle=True), dataset, processes=1)

    first = sampler()
    for _ in range(2):  # also in an epoch that is not the first
        batches = iter(first)
        begun = list(islice(batches, 3))
        state = json.loads(json.dumps(first.state_dict()))
        rest = list(batches)
        second = sampler()
        second.load_state_dict(state)
        assert list(second) == rest
        assert begun + rest != sorted(begun + rest)
