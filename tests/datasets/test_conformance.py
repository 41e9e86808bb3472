"""The same samples as `aistore.pytorch`, of every class, over the same cluster, however the workers are started.

What that package yields without workers is the truth: with workers not all of its classes work, as each case tells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import aistore.pytorch as reference
import pytest
from aistore.pytorch.batch_iter_dataset import AISBatchIterDataset as ReferenceBatchIterDataset
from aistore.sdk import DataShard
from aistore.sdk.enums import Colocation
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import aiscache
from aiscache import Cache
from aiscache.devserver import DevCluster

from .shard_files import shard, shards
from .test_map_dataset import METHODS, as_list

OBJECTS, SHARDS, FILES = 60, 5, 40


@dataclass(frozen=True)
class Sources:
    """Where the data is: a bucket of objects, one of WebDataset shards, one of shards to be read side by side."""

    cluster: DevCluster
    name: str

    def bucket(self, kind: str = "") -> Any:
        return self.cluster.client().bucket(f"{self.name}{kind}")

    def but_empty(self) -> tuple[Any, dict[Any, str]]:
        """A bucket, and the prefix of those of its objects that are not empty."""
        bucket = self.bucket()
        return bucket, {bucket: "d"}

    def streams(self) -> list[DataShard]:
        return [DataShard(self.cluster.endpoint, f"{self.name}-streams", prefix=kind) for kind in ("a", "b")]


@dataclass(frozen=True)
class Case:
    ours: Callable[[Sources, Any], Any]
    theirs: Callable[[Sources], Any]
    gets: int  # objects that it is made of
    plain: Callable[[Any], Any] = tuple
    sampler: Callable[[Any, Any], Any] | None = None  # (package, dataset): a batch sampler
    their_workers_fail: str = ""  # why


def name_and_bytes(sample: Any) -> tuple[str, bytes]:
    name, buffer = sample
    with buffer:
        return name, buffer.tobytes()


def name_and_items(sample: Any) -> tuple[str, list[tuple[str, bytes]]]:
    """A basename, and its files. Extensions that it lacks depend on the shards that this worker has seen before."""
    return sample[0], sorted((extension, content) for extension, content in sample[1].items() if content)


CASES = {
    "AISMapDataset": Case(
        lambda sources, cache: aiscache.AISMapDataset(sources.bucket(), cache=cache),
        lambda sources: reference.AISMapDataset(sources.bucket()),
        gets=OBJECTS,
    ),
    "AISIterDataset": Case(
        lambda sources, cache: aiscache.AISIterDataset(sources.bucket(), cache=cache),
        lambda sources: reference.AISIterDataset(sources.bucket()),
        gets=OBJECTS,
    ),
    "AISShardReader": Case(
        lambda sources, cache: aiscache.AISShardReader(sources.bucket("-shards"), cache=cache),
        lambda sources: reference.AISShardReader(sources.bucket("-shards")),
        gets=SHARDS,
        plain=name_and_items,
    ),
    "AISMultiShardStream": Case(
        lambda sources, cache: aiscache.AISMultiShardStream(sources.streams(), cache=cache),
        lambda sources: reference.AISMultiShardStream(sources.streams()),
        gets=4,
        their_workers_fail="every worker yields every sample",
    ),
    "AISBatchIterDataset": Case(
        lambda sources, cache: aiscache.AISBatchIterDataset(
            sources.bucket(), sources.cluster.client(), {}, False, 8, cache=cache
        ),
        lambda sources: ReferenceBatchIterDataset(sources.bucket(), sources.cluster.client(), {}, False, 8),
        gets=OBJECTS,
    ),
    "AISParallelMapDataset": Case(
        lambda sources, cache: aiscache.AISParallelMapDataset(*sources.but_empty(), 2, cache=cache),
        lambda sources: reference.AISParallelMapDataset(*sources.but_empty(), 2),
        gets=OBJECTS - 1,  # theirs raises on an empty object
        plain=name_and_bytes,
        their_workers_fail="a buffer is freed with the process that downloaded it",
    ),
    "DynamicBatchSampler": Case(
        lambda sources, cache: aiscache.AISMapDataset(sources.bucket(), cache=cache),
        lambda sources: reference.AISMapDataset(sources.bucket()),
        gets=OBJECTS - 1,  # an empty object is in no batch
        sampler=lambda package, dataset: package.DynamicBatchSampler(dataset, 20_000),
    ),
}


CLASSES = {
    name: getattr(reference, name)
    for name in (*CASES, "AISBaseMapDataset", "AISBaseIterDataset")
    if name[3:8] != "Batch"
}
CLASSES["AISBatchIterDataset"] = ReferenceBatchIterDataset


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_by_position_are_those_of_aistore_pytorch(name: str) -> None:
    theirs = list(signature(CLASSES[name]).parameters.values())
    ours = list(signature(getattr(aiscache, name)).parameters.values())
    assert [one.name for one in ours[: len(theirs)]] == [one.name for one in theirs]
    for our, their in zip(ours, theirs, strict=False):
        none_of_both = not (our.default or their.default)  # None for an empty dict
        without_a_meaning = their.default is Colocation.NONE or their.name == "client"
        assert our.default == their.default or none_of_both or without_a_meaning
    assert all(one.kind in {one.KEYWORD_ONLY, one.VAR_KEYWORD} for one in ours[len(theirs) :])


@pytest.fixture
def sources(dev_cluster: DevCluster, bucket_name: str) -> Sources:
    dev_cluster.put_many(
        bucket_name, {f"d{n % 3}/o{n:03}": os.urandom(100 * n) for n in range(1, OBJECTS)} | {"empty": b""}
    )
    dev_cluster.put_many(f"{bucket_name}-shards", shards(SHARDS))
    files = {stream: {f"{n:03}.{stream}": os.urandom(50 * n + 1) for n in range(FILES)} for stream in "ab"}
    halves = {
        f"{stream}-{half}.tar": shard(dict(list(made.items())[half * FILES // 2 :][: FILES // 2]))
        for stream, made in files.items()
        for half in range(2)
    }
    dev_cluster.put_many(f"{bucket_name}-streams", halves)
    return Sources(dev_cluster, bucket_name)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        yield cache


def read(case: Case, dataset: Any, package: Any, workers: int = 0, method: str | None = None) -> Iterator[list[Any]]:
    """Yield epochs: samples, or batches of them if it is the batches that count."""
    options: dict[str, Any] = {"batch_size": 7}
    if case.sampler is not None:
        options = {"batch_sampler": case.sampler(package, dataset)}
    loader: Any = DataLoader(
        dataset,
        collate_fn=as_list,
        num_workers=workers,
        multiprocessing_context=method,
        persistent_workers=workers > 0,
        **options,
    )
    while True:
        batches = [list(map(case.plain, batch)) for batch in loader]
        yield batches if case.sampler is not None else [sample for batch in batches for sample in batch]


def check(case: Case, sources: Sources, cache: Cache, workers: int, method: str | None) -> None:
    expected = next(read(case, case.theirs(sources), reference))
    ours = case.ours(sources, cache)
    sources.cluster.reset_requests()
    epochs = read(case, ours, aiscache, workers, method)
    found = next(epochs)
    requests = sources.cluster.requests()
    assert (requests["GET"], requests["LIST"], requests["BATCH"]) == (case.gets, 0, 0)
    if workers == 0 or not isinstance(ours, IterableDataset):
        assert found == expected
    else:
        assert sorted(found) == sorted(expected)
    sources.cluster.reset_requests()
    assert sorted(next(epochs)) == sorted(expected)
    if hasattr(ours, "__len__") and case.sampler is None:
        assert len(ours) == len(expected)
    assert sum(sources.cluster.requests().values()) == 0  # no request of any kind
    epochs.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("workers", "method"), METHODS[:2])
@pytest.mark.parametrize("kind", CASES)
def test_samples_are_those_of_aistore_pytorch(
    sources: Sources, cache: Cache, kind: str, workers: int, method: str | None
) -> None:
    check(CASES[kind], sources, cache, workers, method)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "method"), METHODS[2:])
@pytest.mark.parametrize("kind", CASES)
def test_samples_are_those_of_aistore_pytorch_in_workers_that_import_anew(
    sources: Sources, cache: Cache, kind: str, workers: int, method: str
) -> None:
    check(CASES[kind], sources, cache, workers, method)


@pytest.mark.parametrize(
    ("workers", "method"),
    [METHODS[1], *(pytest.param(*method, marks=pytest.mark.slow) for method in METHODS[2:])],
)
@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if not case.their_workers_fail])
def test_workers_of_aistore_pytorch_have_the_same_samples(
    sources: Sources, kind: str, workers: int, method: str
) -> None:
    case = CASES[kind]
    theirs = case.theirs(sources)
    with_workers = next(read(case, theirs, reference, workers, method))
    assert sorted(with_workers) == sorted(next(read(case, theirs, reference)))


@dataclass
class Together(IterableDataset[Any]):
    """Samples of many datasets, (kind, sample), so that one start of workers does for all of them."""

    datasets: dict[str, Any]
    batches: dict[str, list[list[int]]] = field(default_factory=dict)  # of those that are read by index

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        info = get_worker_info()
        assert info is not None
        for kind, dataset in self.datasets.items():
            if kind not in self.batches:
                yield from ((kind, sample) for sample in dataset)
                continue
            for batch in self.batches[kind][info.id :: info.num_workers]:
                samples = dataset.__getitems__(batch)
                yield from [(kind, samples)] if CASES[kind].sampler else ((kind, sample) for sample in samples)


@pytest.mark.parametrize(("workers", "method"), METHODS[2:])
def test_all_classes_in_the_same_workers(sources: Sources, cache: Cache, workers: int, method: str) -> None:
    datasets = {kind: case.ours(sources, cache) for kind, case in CASES.items()}
    by_index = {kind: dataset for kind, dataset in datasets.items() if not isinstance(dataset, IterableDataset)}
    batches = {
        kind: [list(range(len(dataset)))[at : at + 7] for at in range(0, len(dataset), 7)]
        for kind, dataset in by_index.items()
    }
    batches["DynamicBatchSampler"] = list(aiscache.DynamicBatchSampler(datasets["DynamicBatchSampler"], 20_000))
    sources.cluster.reset_requests()
    loader: Any = DataLoader(
        Together(datasets, batches), batch_size=None, num_workers=workers, multiprocessing_context=method
    )
    found: dict[str, list[Any]] = {kind: [] for kind in CASES}
    for kind, sample in loader:
        case = CASES[kind]
        found[kind].append(list(map(case.plain, sample)) if case.sampler else case.plain(sample))
    assert sources.cluster.requests()["GET"] == OBJECTS + SHARDS + 4  # what several classes read, too
    for kind, case in CASES.items():
        assert sorted(found[kind]) == sorted(next(read(case, case.theirs(sources), reference)))
