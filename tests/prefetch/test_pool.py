"""The pool of processes: what it is, and what is left when something dies."""

# ruff: noqa: B023  (what waits for a condition is done with it before the loop goes on)

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiscache import AISMapDataset, Cache, DataLoader
from aiscache.devserver import DevCluster
from tests.prefetch.processes import (
    children_of,
    command_of,
    descendants_of,
    held_locks,
    is_alive,
    nothing_is_left,
    pool_processes,
    pss_bytes,
    wait_until,
)
from tests.store.objects import disk_usage

COUNT, SIZE = 300, 20_000
CAPACITY = 20_000_000
FULL, LOOKAHEAD = 2_000_000, 2_000_000  # a third of the data fits

TRAINER = """
import sys, time, torch
from aistore.sdk import Client
from aiscache import AISMapDataset, Cache, DataLoader
endpoint, bucket, path, workers, capacity, lookahead, pause = sys.argv[1:]
torch.manual_seed(1)
dataset = AISMapDataset(Client(endpoint).bucket(bucket), cache=Cache(path, capacity=int(capacity)))
loader = DataLoader(dataset, batch_size=10, shuffle=True, num_workers=int(workers), collate_fn=list,
                    multiprocessing_context="fork" if int(workers) else None,
                    prefetch_processes=2, lookahead=int(lookahead))
total = 0
for number, batch in enumerate(loader):
    total += sum(len(content) for _, content in batch)
    print("batch", number, flush=True)
    time.sleep(float(pause))
print("total", total, loader.prefetcher.stats().deaths, flush=True)
"""


def trainer(cluster: DevCluster, bucket: str, path: Path, *, workers: int = 0, **options: Any) -> subprocess.Popen[str]:
    settings = {"capacity": CAPACITY, "lookahead": LOOKAHEAD, "pause": 0.02, **options}
    arguments = [cluster.endpoint, bucket, str(path), str(workers), *map(str, settings.values())]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", "ignore:This DataLoader will create", "-c", TRAINER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    for line in process.stdout or ():
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}: {process.stderr.read() if process.stderr else ''}")


@pytest.fixture
def bucket(dev_cluster: DevCluster, bucket_name: str) -> str:
    dev_cluster.generate(bucket_name, COUNT, SIZE)
    dev_cluster.reset_requests()
    return bucket_name


def dataset_of(cluster: DevCluster, bucket: str, cache: Cache) -> AISMapDataset:
    return AISMapDataset(cluster.client().bucket(bucket), cache=cache)


def batches(loader: Any) -> Iterator[tuple[int, list[Any]]]:
    return enumerate(iter(loader))


def test_a_pool_process_loads_no_torch_and_no_sdk() -> None:
    code = "import sys, aiscache.prefetch.__main__; print({'torch', 'aistore', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_processes_are_small_and_tell_nothing_secret(bucket_name: str, tmp_path: Path) -> None:
    with DevCluster(targets=1, token="sesame") as cluster, Cache(tmp_path / "cache", capacity=CAPACITY) as cache:
        cluster.generate(bucket_name, COUNT, SIZE)
        cluster.set_delay(0.02)
        loader = DataLoader(
            dataset_of(cluster, bucket_name, cache), batch_size=10, collate_fn=list, prefetch_processes=2
        )
        for number, _ in batches(loader):
            if number == 5:
                wait_until(lambda: loader.prefetcher.stats().objects > 100)
                pids = pool_processes(os.getpid())
                assert len(pids) == 3
                for pid in pids:
                    assert "sesame" not in command_of(pid)
                    assert b"sesame" not in Path(f"/proc/{pid}/environ").read_bytes()
                    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
                    assert pss_bytes(pid) < 60_000_000
        assert loader.prefetcher.stats().failed == 0
        loader.prefetcher.close()
    assert pool_processes(os.getpid()) == []


def test_a_warm_epoch_starts_no_process(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", capacity=CAPACITY) as cache:
        dataset = dataset_of(dev_cluster, bucket, cache)
        dataset.read_many(range(COUNT))
        loader = DataLoader(dataset, batch_size=10, shuffle=True, collate_fn=list)
        assert sum(len(batch) for batch in loader) == COUNT
        assert loader.prefetcher.pid is None
        assert children_of(os.getpid()) == [] or pool_processes(os.getpid()) == []


def test_one_slow_object_does_not_hold_up_those_behind_it(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    """About 75 objects are staged ahead: more come only as the loop goes on, and while the slow one is under way."""
    slow = 140
    dev_cluster.fault(bucket, f"{slow:08}", method="GET", delay_s=50)
    with Cache(tmp_path / "cache", capacity=FULL) as cache:
        dataset = dataset_of(dev_cluster, bucket, cache)
        loader = DataLoader(dataset, batch_size=10, collate_fn=list, prefetch_processes=1, lookahead=LOOKAHEAD)
        for number, _ in batches(loader):
            if number == 0:
                wait_until(lambda: dev_cluster.requests()["GET"] > slow)
            time.sleep(0.05)  # a step of training, in which what was read is let go
            if number == slow // 10 - 1:
                wait_until(lambda: dev_cluster.requests()["GET"] >= slow + 40)
                break
        loader.prefetcher.close()


@pytest.mark.parametrize(
    ("when", "capacity"),
    [
        ("before a fetch", FULL),
        ("during a fetch", CAPACITY),
        ("during a fetch", FULL),
        ("after a fetch", FULL),
        pytest.param("before a fetch", CAPACITY, marks=pytest.mark.slow),
        pytest.param("after a fetch", CAPACITY, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_is_replaced(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, when: str, capacity: int
) -> None:
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.05)
    with Cache(path, capacity=capacity) as cache:
        dataset = dataset_of(dev_cluster, bucket, cache)
        loader = DataLoader(dataset, batch_size=10, collate_fn=list, prefetch_processes=1, lookahead=LOOKAHEAD)
        seen = []
        for number, batch in batches(loader):
            seen += [name for name, _ in batch]
            if number == 0:
                pid = loader.prefetcher.pid
                wait_until(lambda: children_of(pid))
                (worker,) = children_of(pid)
                if when == "during a fetch":
                    wait_until(lambda: dev_cluster.requests()["GET"] > 20)
                elif when == "after a fetch":
                    wait_until(lambda: loader.prefetcher.stats().objects > 20)
                os.kill(worker, signal.SIGKILL)
                wait_until(lambda: loader.prefetcher.stats().deaths == 1 and children_of(pid))
                wait_until(lambda: loader.prefetcher.stats().objects > 30)
            assert disk_usage(path) <= capacity + LOOKAHEAD
        assert len(set(seen)) == COUNT
        loader.prefetcher.close()
    nothing_is_left(path, capacity=capacity)


def test_workers_that_keep_dying_are_given_up(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.set_delay(0.05)
    with Cache(tmp_path / "cache", capacity=CAPACITY) as cache:
        loader = DataLoader(
            dataset_of(dev_cluster, bucket, cache), batch_size=10, collate_fn=list, prefetch_processes=1
        )
        for number, _ in batches(loader):
            if number == 0:
                pid = loader.prefetcher.pid
                for deaths in range(1, 5):
                    wait_until(lambda: children_of(pid))
                    os.kill(children_of(pid)[0], signal.SIGKILL)
                    wait_until(lambda deaths=deaths: loader.prefetcher.stats().deaths == deaths)
                assert loader.prefetcher.stats().workers == 0
        assert cache.stats().fetched_objects == COUNT


def test_a_pool_that_is_killed_is_started_again_with_the_next_epoch(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.01)
    with Cache(path, capacity=FULL) as cache:
        dataset = dataset_of(dev_cluster, bucket, cache)
        loader = DataLoader(dataset, batch_size=10, collate_fn=list, prefetch_processes=2, lookahead=LOOKAHEAD)
        killed = 0
        for _ in range(2):
            seen = []
            for number, batch in batches(loader):
                seen += [name for name, _ in batch]
                if number == 3 and not killed:
                    wait_until(lambda: loader.prefetcher.stats().staged)
                    killed = loader.prefetcher.pid
                    workers = children_of(killed)
                    os.kill(killed, signal.SIGKILL)
                    wait_until(lambda: not any(map(is_alive, workers)), timeout_s=2)
            assert len(set(seen)) == COUNT
        assert loader.prefetcher.pid not in (None, killed)
        assert "the prefetcher ended" in caplog.text
        loader.prefetcher.close()
    nothing_is_left(path, capacity=FULL)


@pytest.mark.parametrize(
    ("workers", "capacity"),
    [(0, FULL), (2, CAPACITY), (2, FULL), pytest.param(0, CAPACITY, marks=pytest.mark.slow)],
)
def test_a_trainer_that_is_killed_leaves_nothing(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, workers: int, capacity: int
) -> None:
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.02)
    process = trainer(dev_cluster, bucket, path, workers=workers, capacity=capacity, pause=0.1)
    read_until(process, "batch 5")
    wait_until(lambda: len(pool_processes(process.pid)) == 3)
    pool = pool_processes(process.pid)
    everybody = descendants_of(process.pid)
    process.kill()
    killed_at = time.monotonic()
    assert set(pool) < set(everybody) or not workers
    wait_until(lambda: not any(map(is_alive, everybody)), timeout_s=5)
    assert time.monotonic() - killed_at < 1.5
    process.communicate()
    assert held_locks(path) == []
    nothing_is_left(path, capacity=capacity)
    again = trainer(dev_cluster, bucket, path, capacity=capacity, pause=0)
    assert read_until(again, "total").split() == ["total", str(COUNT * SIZE), "0"]
    assert again.communicate(timeout=60)[1] == ""


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_all_processes(dev_cluster: DevCluster, bucket: str, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.02)
    process = trainer(dev_cluster, bucket, path, workers=workers, capacity=FULL, pause=0.1)
    read_until(process, "batch 5")
    wait_until(lambda: len(pool_processes(process.pid)) == 3)
    everybody = descendants_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = process.communicate(timeout=30)
    wait_until(lambda: not any(map(is_alive, everybody)))
    assert process.returncode in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in errors
    assert "aiscache/prefetch" not in errors  # no traceback of ours
    assert held_locks(path) == []
    nothing_is_left(path, capacity=FULL)


def test_a_dataloader_worker_that_is_killed_is_told_and_the_pool_ends(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.02)
    process = trainer(dev_cluster, bucket, path, workers=2, capacity=FULL)
    read_until(process, "batch 3")
    pool = pool_processes(process.pid)
    reader = next(pid for pid in children_of(process.pid) if pid not in pool)
    os.kill(reader, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert "killed by signal" in errors or "exited unexpectedly" in errors  # whichever torch sees first
    wait_until(lambda: not any(map(is_alive, pool)), timeout_s=5)
    nothing_is_left(path, capacity=FULL)


def test_a_pool_ends_with_its_loader(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.set_delay(0.05)
    with Cache(tmp_path / "cache", capacity=CAPACITY) as cache:
        dataset = dataset_of(dev_cluster, bucket, cache)
        loader = DataLoader(dataset, batch_size=10, collate_fn=list, num_workers=2, multiprocessing_context="fork")
        iterator = iter(loader)
        next(iterator)
        wait_until(lambda: pool_processes(os.getpid()))
        pids = pool_processes(os.getpid())
        began = time.monotonic()
        del iterator, loader
        assert not any(map(is_alive, pids))
        assert time.monotonic() - began < 2  # torch ends its workers in this time, too
    assert held_locks(tmp_path / "cache") == []


def test_close_is_bounded_while_the_cluster_is_silent(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", capacity=CAPACITY) as cache:
        dataset = dataset_of(dev_cluster, bucket, cache)
        loader = DataLoader(dataset, batch_size=10, collate_fn=list)
        for number, _ in batches(loader):
            if number == 0:
                dev_cluster.set_delay(20)
                wait_until(lambda: children_of(loader.prefetcher.pid))
                time.sleep(0.2)  # requests are out now, or they are not: both are fine
                began = time.monotonic()
                loader.prefetcher.close()
                assert time.monotonic() - began < 1
                dev_cluster.set_delay(0)
                break
        assert pool_processes(os.getpid()) == []
