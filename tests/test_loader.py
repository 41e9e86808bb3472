"""`aiscache.DataLoader`: torch's loader in every way, with the cache filled ahead of it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from aiscache import AISBaseMapDataset, AISIterDataset, AISMapDataset, Cache, DataLoader
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError
from aiscache.store.runs import notes_in
from tests.prefetch.processes import children_of, nothing_is_left
from tests.store.objects import disk_usage

COUNT, SIZE = 240, 20_000


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        yield cache


@pytest.fixture
def bucket(dev_cluster: DevCluster, bucket_name: str) -> Any:
    dev_cluster.generate(bucket_name, COUNT, SIZE)
    return dev_cluster.client().bucket(bucket_name)


@pytest.fixture
def dataset(dev_cluster: DevCluster, bucket: Any, cache: Cache) -> AISMapDataset:
    dataset = AISMapDataset(bucket, cache=cache)
    dev_cluster.reset_requests()
    return dataset


def names_of(loader: Any) -> list[str]:
    return [name for batch in loader for name, _ in batch]


def end(*loaders: Any) -> None:
    for loader in loaders:
        if loader.prefetcher is not None:
            loader.prefetcher.close()


@pytest.mark.parametrize(
    ("workers", "method", "content"),
    [
        (0, None, "bytes"),
        (0, None, "view"),
        (2, "fork", "bytes"),
        (2, "fork", "view"),
        (2, "spawn", "bytes"),
        pytest.param(2, "spawn", "view", marks=pytest.mark.slow),
        pytest.param(2, "forkserver", "bytes", marks=pytest.mark.slow),
        (2, "forkserver", "view"),
    ],
)
def test_epochs_are_torchs_and_each_object_is_fetched_once(
    dev_cluster: DevCluster, bucket: Any, cache: Cache, workers: int, method: str | None, content: str
) -> None:
    dataset = AISMapDataset(bucket, cache=cache, content=content)
    dev_cluster.reset_requests()
    dev_cluster.set_delay(0.01)
    options: Any = {
        "batch_size": 16,
        "shuffle": True,
        "num_workers": workers,
        "multiprocessing_context": method,
        "persistent_workers": workers > 0,
        "collate_fn": list,
    }
    ours = DataLoader(dataset, generator=torch.Generator().manual_seed(2), prefetch_processes=2, **options)
    epochs = [[(name, bytes(content)) for batch in ours for name, content in batch] for _ in range(2)]
    assert dev_cluster.requests()["GET"] == COUNT
    end(ours)
    theirs: Any = torch.utils.data.DataLoader(dataset, generator=torch.Generator().manual_seed(2), **options)
    assert epochs == [[(name, bytes(content)) for batch in theirs for name, content in batch] for _ in range(2)]
    assert cache.stats().fetched_objects == COUNT


def test_epochs_are_noted_with_what_the_cache_did(dataset: AISMapDataset, cache: Cache) -> None:
    loader = DataLoader(dataset, batch_size=5, shuffle=True, collate_fn=list)
    for _ in range(2):
        names_of(loader)
    next(iter(loader))
    store = cache.store()
    assert store is not None
    end(loader)
    cold, warm, broken_off = notes_in(store.directory.runs)
    assert (cold.complete, warm.complete, broken_off.complete) == (True, True, False)
    assert cold.samples == warm.samples == len(dataset) - 5  # without workers, one batch is on its way at the end
    assert sum(cold.latencies) == cold.counters["fetched_objects"] == len(dataset)
    assert (warm.counters["hit_ratio"], sum(warm.latencies)) == (1.0, 0)


def test_its_arguments_and_defaults_are_torchs(dataset: AISMapDataset) -> None:
    plain: Any = torch.utils.data.DataLoader(dataset)
    ours: Any = DataLoader(dataset)
    names = set(inspect.signature(torch.utils.data.DataLoader).parameters) - {"shuffle"}
    for name in names - {"sampler", "batch_sampler", "dataset"}:
        assert getattr(ours, name) == getattr(plain, name), name
    assert type(ours.sampler) is SequentialSampler
    assert type(ours.batch_sampler) is BatchSampler
    assert (ours.prefetch_processes, ours.prefetch_connections, ours.lookahead) == (None, None, "512MB")
    assert len(DataLoader(dataset, 16, True, drop_last=True)) == 15
    assert isinstance(DataLoader(dataset, 16, True).sampler, RandomSampler)
    with pytest.raises(ConfigError, match="lookahead='plenty'"):
        DataLoader(dataset, lookahead="plenty")
    with pytest.raises(ValueError, match="mutually exclusive"):
        DataLoader(dataset, shuffle=True, sampler=[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_without_batches(dataset: AISMapDataset, workers: int) -> None:
    loader = DataLoader(dataset, batch_size=None, shuffle=True, num_workers=workers, prefetch_processes=1)
    assert len({name for name, _ in loader}) == len(loader) == COUNT
    end(loader)


def test_a_batch_sampler_of_the_users_own(dataset: AISMapDataset) -> None:
    batches = [[1, 2, 3], [7], [200, 100]]
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=1, collate_fn=list, prefetch_processes=1)
    assert loader.batch_sampler is batches
    assert names_of(loader) == [dataset.manifest.name(index) for batch in batches for index in batch]
    end(loader)


def test_an_iterable_dataset_needs_no_pool(bucket: Any, cache: Cache) -> None:
    dataset = AISIterDataset(bucket, cache=cache)
    loader = DataLoader(dataset, batch_size=16, num_workers=2, collate_fn=list)
    assert len(set(names_of(loader))) == COUNT
    assert loader.prefetcher is None


def test_a_plain_dataset_is_loaded_as_by_torch() -> None:
    loader = DataLoader([1, 2, 3], batch_size=2)
    assert [batch.tolist() for batch in loader] == [[1, 2], [3]]
    assert loader.prefetcher is None


def note_worker(worker: int) -> None:
    os.environ["TEST_WORKER"] = str(worker)


class Subclass(AISBaseMapDataset):
    def __getitem__(self, index: int) -> tuple[str, str]:
        return str(len(self.read(index))), os.environ.get("TEST_WORKER", "")


def test_subclasses_and_worker_init_fn(dev_cluster: DevCluster, bucket: Any, cache: Cache) -> None:
    dataset = Subclass(bucket, cache=cache)
    dev_cluster.reset_requests()
    loader = DataLoader(
        dataset, batch_size=16, num_workers=2, collate_fn=list, worker_init_fn=note_worker, prefetch_processes=1
    )
    samples = [sample for batch in loader for sample in batch]
    assert {size for size, _ in samples} == {str(SIZE)}
    assert {worker for _, worker in samples} == {"0", "1"}
    assert dev_cluster.requests()["GET"] == COUNT
    end(loader)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_pin_memory(dataset: AISMapDataset) -> None:
    loader = DataLoader(dataset, batch_size=16, num_workers=2, pin_memory=True, prefetch_processes=1)
    assert sum(len(names) for names, _ in loader) == COUNT
    end(loader)


def test_an_epoch_abandoned_in_the_middle_and_the_next_begun_at_once(
    dev_cluster: DevCluster, dataset: AISMapDataset, cache: Cache
) -> None:
    dev_cluster.set_delay(0.02)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2, persistent_workers=True, collate_fn=list)
    for taken in (1, 3, 2):
        iterator = iter(loader)
        for _ in range(taken):
            next(iterator)
    assert sorted(names_of(loader)) == [dataset.manifest.name(index) for index in range(COUNT)]
    assert cache.stats().fetched_objects == COUNT
    end(loader)


def test_a_new_epoch_begins_before_the_last_has_ended(dev_cluster: DevCluster, dataset: AISMapDataset) -> None:
    dev_cluster.set_delay(0.02)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, collate_fn=list, prefetch_processes=1)
    pairs = list(zip(loader, loader, strict=True))
    for one in (0, 1):
        assert len({name for pair in pairs for name, _ in pair[one]}) == COUNT
    assert dev_cluster.requests()["GET"] == COUNT
    end(loader)


def test_two_loaders_over_one_dataset_at_once(dev_cluster: DevCluster, dataset: AISMapDataset) -> None:
    dev_cluster.set_delay(0.02)
    loaders = [
        DataLoader(dataset, batch_size=16, shuffle=True, collate_fn=list, num_workers=1, prefetch_processes=1)
        for _ in range(2)
    ]
    pairs = list(zip(*loaders, strict=True))
    for one in (0, 1):
        assert len({name for pair in pairs for name, _ in pair[one]}) == COUNT
    assert dev_cluster.requests()["GET"] == COUNT
    end(*loaders)


def test_a_loop_that_breaks_off_ends_its_pool_when_the_loader_goes(
    dev_cluster: DevCluster, dataset: AISMapDataset
) -> None:
    dev_cluster.set_delay(0.02)
    loader = DataLoader(dataset, batch_size=16, num_workers=2, collate_fn=list)
    for _ in loader:
        break
    assert loader.prefetcher is not None
    pid = loader.prefetcher.pid
    assert pid in children_of(os.getpid())
    del loader
    assert pid not in children_of(os.getpid())


@pytest.mark.parametrize("content", ["bytes", "view"])
def test_a_quarter_of_the_data_fits_and_the_loop_does_not_wait(
    dev_cluster: DevCluster, bucket: Any, tmp_path: Path, content: str
) -> None:
    path, capacity, lookahead = tmp_path / "cache", COUNT * SIZE // 4, 3_000_000
    dev_cluster.set_delay(0.01)
    with Cache(path, capacity=capacity) as cache:
        dataset = AISMapDataset(bucket, cache=cache, content=content)
        loader = DataLoader(
            dataset, batch_size=10, shuffle=True, num_workers=2, collate_fn=list, persistent_workers=True,
            prefetch_processes=2, lookahead=lookahead,
        )  # fmt: skip
        peak, fetched = 0, []
        for _ in range(3):
            before, seen = cache.stats(), []
            for batch in loader:
                seen += [name for name, content in batch if len(bytes(content)) == SIZE]
                peak = max(peak, disk_usage(path))
                time.sleep(0.03)  # the training step
            assert len(set(seen)) == COUNT
            fetched.append((cache.stats() - before).fetched_objects)
        did = cache.stats() - before
        end(loader)
        del loader, batch  # and with it torch's workers
    assert peak <= capacity + lookahead
    # A cache as small as this has some of its space in unfinished segments, more or less of it in each epoch.
    assert all(0.75 * COUNT <= again < 0.83 * COUNT for again in fetched[1:])
    assert did.staged > 0.6 * fetched[2]
    nothing_is_left(path, capacity=capacity)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quarter_of_much_data(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> None:
    count, size = 4000, 50_000
    dev_cluster.generate(bucket_name, count, (10_000, 90_000), seed=3)
    dev_cluster.set_delay(0.005)
    path, capacity, lookahead = tmp_path / "cache", count * size // 4, 20_000_000
    with Cache(path, capacity=capacity) as cache:
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
        loader = DataLoader(dataset, batch_size=32, shuffle=True, num_workers=2, collate_fn=list, lookahead=lookahead)
        for epoch in range(3):
            before = cache.stats()
            for _ in loader:
                assert disk_usage(path) <= capacity + lookahead
                time.sleep(0.04)
            did = cache.stats() - before
            if epoch == 2:
                assert did.fetched_objects == pytest.approx(0.75 * count, abs=0.01 * count)
        end(loader)


RANK = """
import sys, torch
from aistore.sdk import Client
from torch.utils.data import DistributedSampler
from aiscache import AISMapDataset, Cache, DataLoader
endpoint, bucket, path, rank, ranks = sys.argv[1:]
dataset = AISMapDataset(Client(endpoint).bucket(bucket), cache=Cache(path, capacity="100MB"))
sampler = DistributedSampler(dataset, num_replicas=int(ranks), rank=int(rank), shuffle=True)
loader = DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=1, collate_fn=list, prefetch_processes=1)
print("ready", flush=True); sys.stdin.readline()
for epoch in range(2):
    sampler.set_epoch(epoch)
    print(sum(len(content) for batch in loader for _, content in batch), flush=True)
"""


@pytest.mark.parametrize("ranks", [2, pytest.param(8, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_ranks_fetch_each_object_once_together(
    dev_cluster: DevCluster, bucket: Any, cache: Cache, tmp_path: Path, ranks: int
) -> None:
    dev_cluster.set_delay(0.01)
    arguments = [sys.executable, "-c", RANK, dev_cluster.endpoint, bucket.name, str(tmp_path / "cache")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([*arguments, str(rank), str(ranks)], **pipes) for rank in range(ranks)]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    dev_cluster.reset_requests()
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    totals = [list(map(int, job.communicate(timeout=200)[0].split())) for job in jobs]
    assert [sum(epoch) for epoch in zip(*totals, strict=True)] == [COUNT * SIZE] * 2
    assert dev_cluster.requests()["GET"] == COUNT


UNGUARDED = """
import sys
from aistore.sdk import Client
from aiscache import AISMapDataset, Cache, DataLoader
print("main module")
dataset = AISMapDataset(Client(sys.argv[1]).bucket(sys.argv[2]), cache=Cache(sys.argv[3], capacity="100MB"))
loader = DataLoader(dataset, batch_size=8, collate_fn=list, prefetch_processes=2)
count = 0
for number, batch in enumerate(loader):
    count += len(batch)
    while number == 3 and not loader.prefetcher.stats().objects:
        pass
print(count)
"""


def test_a_script_without_a_main_guard_in_a_directory_full_of_traps(
    dev_cluster: DevCluster, bucket: Any, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(UNGUARDED)
    for name in ("plan", "worker", "pool", "lmdb", "pycurl"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module was imported')")
    dev_cluster.set_delay(0.02)
    code = (
        f"import runpy, sys; sys.path.pop(0); sys.argv[0] = 'train.py'; runpy.run_path({str(tmp_path / 'train.py')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, dev_cluster.endpoint, bucket.name, str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"main module\n{COUNT}\n", "")
