"""`PrefetchSampler`: yields what it wraps, forwards the rest, and tells the pool the right rows."""

from __future__ import annotations

import itertools
import operator
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from aiscache import AISMapDataset, AISShardDataset, Cache, DynamicBatchSampler, PrefetchSampler
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError
from aiscache.prefetch.job import NOT_OURS
from aiscache.targets import Target
from tests.datasets.shard_files import shards
from tests.prefetch.processes import wait_until

COUNT = 120


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        yield cache


@pytest.fixture
def dataset(dev_cluster: DevCluster, bucket_name: str, cache: Cache) -> AISMapDataset:
    dev_cluster.generate(bucket_name, COUNT, 5000)
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
    dev_cluster.reset_requests()
    return dataset


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SAMPLERS: dict[str, Any] = {
    "sequential": SequentialSampler,
    "random": lambda d: RandomSampler(d, generator=seeded()),
    "with replacement": lambda d: RandomSampler(d, replacement=True, num_samples=300, generator=seeded()),
    "weighted": lambda d: WeightedRandomSampler(torch.ones(len(d)), 100, generator=seeded()),
    "subset": lambda d: SubsetRandomSampler(range(0, len(d), 3), generator=seeded()),
    "distributed": lambda d: DistributedSampler(d, num_replicas=3, rank=1),
    "batches": lambda d: BatchSampler(RandomSampler(d, generator=seeded()), 7, drop_last=True),
    "a list of numpy": lambda d: list(np.arange(len(d))[::-1]),
    "tensors": lambda d: [torch.arange(5), torch.arange(5, 9)],
    "nothing": lambda d: [],
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_it_yields_what_it_wraps(dataset: AISMapDataset, kind: str) -> None:
    expected = list(SAMPLERS[kind](dataset))
    sampler = PrefetchSampler(SAMPLERS[kind](dataset), dataset, processes=1)
    found = list(sampler)
    assert list(map(str, found)) == list(map(str, expected))
    assert len(sampler) == len(expected)
    if kind != "nothing":
        assert sampler.prefetcher is not None
        sampler.prefetcher.close()


@pytest.mark.parametrize("place", ["sampler", "batch_sampler"])
@pytest.mark.parametrize("workers", [0, 2])
def test_in_torchs_own_loader(
    dev_cluster: DevCluster, dataset: AISMapDataset, cache: Cache, place: str, workers: int
) -> None:
    inner: Any = RandomSampler(dataset, generator=seeded())
    plain: Any = BatchSampler(RandomSampler(dataset, generator=seeded()), 8, False)
    expected = [index for batch in plain for index in batch]
    dev_cluster.set_delay(0.02)
    if place == "sampler":
        sampler = PrefetchSampler(inner, dataset, processes=1)
        options = {"sampler": sampler, "batch_size": 8}
    else:
        sampler = PrefetchSampler(BatchSampler(inner, 8, False), dataset, processes=1)
        options = {"batch_sampler": sampler}
    loader: Any = DataLoader(dataset, num_workers=workers, collate_fn=list, **options)
    samples = []
    for batch in loader:
        if not samples:
            wait_until(lambda: sampler.prefetcher and sampler.prefetcher.stats().objects)
        samples += batch
    assert [name for name, _ in samples] == [dataset.manifest.name(index) for index in expected]
    assert dev_cluster.requests()["GET"] == COUNT
    assert sampler.prefetcher is not None
    dev_cluster.reset_requests()
    assert len([sample for batch in loader for sample in batch]) == COUNT
    assert sum(dev_cluster.requests().values()) == 0
    sampler.prefetcher.close()


def test_with_the_dynamic_batches_of_aistore_pytorch(dev_cluster: DevCluster, dataset: AISMapDataset) -> None:
    from aistore.pytorch import DynamicBatchSampler

    plain = DynamicBatchSampler(dataset, max_batch_size=32_000)
    sampler = PrefetchSampler(DynamicBatchSampler(dataset, max_batch_size=32_000), dataset, processes=1)
    expected = [[dataset.manifest.name(index) for index in batch] for batch in plain]
    loader: Any = DataLoader(dataset, batch_sampler=sampler, collate_fn=list)
    assert [[name for name, _ in batch] for batch in loader] == expected
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()


def test_it_forwards_what_callers_reach_for(dataset: AISMapDataset) -> None:
    distributed: Any = DistributedSampler(dataset, num_replicas=2, rank=0)
    sampler = PrefetchSampler(distributed, dataset)
    sampler.set_epoch(5)
    assert distributed.epoch == sampler.epoch == 5
    batches = PrefetchSampler(BatchSampler(distributed, 4, True), dataset)
    assert (batches.batch_size, batches.drop_last, batches.sampler) == (4, True, distributed)
    assert isinstance(sampler, Sampler)
    assert not hasattr(sampler, "sampler")
    assert not hasattr(sampler, "state_dict")
    assert repr(PrefetchSampler([1], dataset)) == "PrefetchSampler([1])"
    with pytest.raises(TypeError):
        len(PrefetchSampler(iter([1]), dataset))
    copy = pickle.loads(pickle.dumps(PrefetchSampler([1, 2], dataset)))
    assert len(copy) == 2


@pytest.mark.parametrize(
    "options", [{"processes": 0}, {"connections": -1}, {"lookahead": "much"}, {"lookahead": 0}], ids=str
)
def test_bad_arguments_are_told(dataset: AISMapDataset, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PrefetchSampler([1], dataset, **options)


class Stateful(Sampler[int]):
    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(self.count).tolist())

    def __len__(self) -> int:
        return self.count

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]


@pytest.mark.parametrize("taken", [0, 1, 50, COUNT])
def test_a_state_is_where_the_loop_is_not_how_far_was_read_ahead(dataset: AISMapDataset, taken: int) -> None:
    sampler = PrefetchSampler(Stateful(COUNT), dataset, processes=1)
    list(sampler)
    items = iter(sampler)
    before = [next(items) for _ in range(taken)]
    state = sampler.state_dict()
    rest = list(items)
    resumed = PrefetchSampler(Stateful(COUNT), dataset, processes=1)
    resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
    if not taken:  # the epoch had not begun: the state is that of the end of the one before
        assert list(resumed) == []
    assert list(resumed) == rest
    assert sorted(before + rest) == list(range(COUNT))
    with pytest.raises(ConfigError, match="version"):
        resumed.load_state_dict({"version": 99})
    for each in (sampler, resumed):
        if each.prefetcher is not None:
            each.prefetcher.close()


def test_what_an_order_has_many_times_is_fetched_once(
    dev_cluster: DevCluster, dataset: AISMapDataset, cache: Cache
) -> None:
    dev_cluster.set_delay(0.05)  # all are under way at once
    sampler = PrefetchSampler([number % 10 for number in range(200)], dataset, processes=1)
    items = iter(sampler)
    assert next(items) == 0
    wait_until(lambda: cache.stats().prefetched_objects == 10)
    assert len(list(items)) == 199
    assert dev_cluster.requests()["GET"] == 10
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()


def test_a_state_after_an_epoch_that_was_left_in_the_middle(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.generate(bucket_name, COUNT, 1000)
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=False)

    def sampler() -> PrefetchSampler:
        return PrefetchSampler(DynamicBatchSampler(dataset, 3000, shuffle=True), dataset)

    first = sampler()
    left = list(itertools.islice(first, 7))
    items = iter(first)
    begun = list(itertools.islice(items, 4))
    state = first.state_dict()
    rest = list(items)
    assert begun != left[:4]
    assert sorted(index for batch in begun + rest for index in batch) == list(range(COUNT))
    second = sampler()
    list(itertools.islice(second, 2))  # it has left an epoch, too
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert list(second) == rest


def test_an_endless_sampler_is_read_a_bounded_way_ahead(dataset: AISMapDataset) -> None:
    count = itertools.count()
    sampler = PrefetchSampler((number % COUNT for number in count), dataset, processes=1)
    assert list(itertools.islice(sampler, 200)) == [number % COUNT for number in range(200)]
    assert next(count) < 200 * 70
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()


def test_what_a_sampler_raises_comes_where_it_would_have_come(dataset: AISMapDataset) -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise OSError("broken")

    items = iter(PrefetchSampler(broken(), dataset, processes=1))
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="broken"):
        next(items)


def test_it_draws_from_torchs_generator_when_torch_would(dataset: AISMapDataset) -> None:
    def order(sampler: Any) -> list[Any]:
        torch.manual_seed(11)
        loader: Any = DataLoader(dataset, batch_size=8, sampler=sampler, collate_fn=list)
        return [[name for name, _ in batch] for _ in range(2) for batch in loader]

    sampler = PrefetchSampler(RandomSampler(dataset), dataset, processes=1)
    assert order(sampler) == order(RandomSampler(dataset))
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()


@pytest.mark.parametrize("options", [{"cache": False}, {}], ids=["cache=False", "AISCACHE_DISABLE"])
def test_without_a_cache_it_only_yields(
    dev_cluster: DevCluster, bucket_name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISCACHE_DISABLE", "1")
    dev_cluster.generate(bucket_name, 10, 100)
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), **options)
    sampler = PrefetchSampler(SequentialSampler(dataset), dataset)
    assert list(sampler) == list(range(10))
    assert sampler.prefetcher is None


def test_another_dataset_is_read_as_it_is() -> None:
    sampler = PrefetchSampler(["a", "b"], {"a": 1, "b": 2})  # type: ignore[arg-type]
    assert list(sampler) == ["a", "b"]
    assert sampler.prefetcher is None


def test_keys_that_are_no_indices_are_not_prefetched(dataset: AISMapDataset) -> None:
    items = ["a", 1, None, 10**30, -1, COUNT]
    sampler = PrefetchSampler(items, dataset, processes=1)
    assert list(sampler) == items
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()


def test_rows_of_subsets_and_chains(dev_cluster: DevCluster, bucket_name: str, cache: Cache) -> None:
    dev_cluster.generate(bucket_name, 10, 10)
    dev_cluster.generate(bucket_name + "-b", 5, 10)
    client = dev_cluster.client()
    first, second = (AISMapDataset(client.bucket(bucket_name + end), cache=cache) for end in ("", "-b"))

    def rows(dataset: Any, *indices: int) -> list[int]:
        target = Target.of(dataset)
        assert target is not None
        return target.rows(np.array(indices, np.int64)).tolist()

    none = NOT_OURS
    assert rows(first, 0, 9, 10, -1, -10, -11) == [0, 9, none, 9, 0, none]
    assert rows(Subset(first, [3, 1, -1]), 0, 1, 2, 3, -1) == [3, 1, 9, none, 9]
    assert rows(Subset(Subset(first, range(0, 10, 2)), [4, 0]), 0, 1) == [8, 0]
    assert rows(Subset(first, []), 0) == [none]
    chain: Any = ConcatDataset([first, Subset(second, [4, 3]), [1, 2, 3], first])
    assert rows(chain, 0, 9, 10, 11, 12, 15, 24, 25, -1) == [0, 9, 14, 13, none, 15, 24, none, 24]
    assert Target.of(ConcatDataset([[1], [2]])).job(1, 1, 1) is None  # type: ignore[union-attr, list-item]


def test_samples_of_shards_are_prefetched_by_their_shards(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache
) -> None:
    dev_cluster.put_many(bucket_name, shards(9))
    dataset = AISShardDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
    count = len(dataset)
    target = Target.of(Subset(dataset, [count - 1, 0]))
    assert target is not None
    assert target.rows(np.array([0, 1, 2])).tolist() == [8, 0, NOT_OURS]
    samples = [dataset[index] for index in range(count)]
    cache.clear()  # the index of members stays: it is beside the listing
    dev_cluster.reset_requests()
    sampler = PrefetchSampler(RandomSampler(dataset, generator=seeded()), dataset, processes=1)
    items = iter(sampler)
    order = [next(items)]
    wait_until(lambda: dev_cluster.requests()["GET"] == 9)
    order += items
    assert [dataset[index] for index in order] == [samples[index] for index in order]
    assert (dev_cluster.requests()["GET"], cache.stats().prefetched_objects) == (9, 9)
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()


def test_a_chain_is_prefetched(dev_cluster: DevCluster, bucket_name: str, cache: Cache) -> None:
    for end in ("", "-b"):
        dev_cluster.generate(bucket_name + end, 200, 1000)
    client = dev_cluster.client()
    chain: Any = ConcatDataset([AISMapDataset(client.bucket(bucket_name + end), cache=cache) for end in ("", "-b")])
    sampler = PrefetchSampler(SequentialSampler(chain), chain, processes=1)
    items = iter(sampler)
    next(items)
    wait_until(lambda: cache.stats().fetched_objects >= 390)
    assert bytes(chain[399][1]) == chain.datasets[1][199][1]
    assert sampler.prefetcher is not None
    sampler.prefetcher.close()
    assert operator.length_hint(items) == 0


def test_in_a_forked_child_the_parents_pool_is_left_alone(dev_cluster: DevCluster, dataset: AISMapDataset) -> None:
    dev_cluster.set_delay(0.05)
    sampler = PrefetchSampler(SequentialSampler(dataset), dataset, processes=1)
    items = iter(sampler)
    next(items)
    assert sampler.prefetcher is not None
    pid = sampler.prefetcher.pid
    child = os.fork()
    if child == 0:
        assert sampler.prefetcher.pid is None
        sampler.prefetcher.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sampler.prefetcher.pid == pid
    assert len(list(items)) == COUNT - 1
    sampler.prefetcher.close()
