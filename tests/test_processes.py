"""Processes, threads and interrupts around whole datasets: nothing hangs, nothing is left, nothing is wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiscache import AISMapDataset, Cache
from aiscache.devserver import DevCluster
from aiscache.errors import CacheClosedError
from aiscache.origin import Origin
from tests.notebook import Notebook
from tests.prefetch.processes import (
    command_of,
    descendants_of,
    held_locks,
    is_alive,
    nothing_is_left,
    pool_processes,
    wait_until,
)
from tests.store.objects import disk_usage

COUNT, SIZE = 200, 20_000
PROMPTLY_S = 1.0
BUSY_S = 1.0  # what a machine with other work may need on top


@pytest.fixture
def bucket(dev_cluster: DevCluster, bucket_name: str) -> Iterator[str]:
    dev_cluster.generate(bucket_name, COUNT, SIZE)
    dev_cluster.reset_requests()
    yield bucket_name
    dev_cluster.set_delay(0)
    Origin.close_all()


def in_fork(work: Callable[[], bool]) -> int:
    """Start `work` in a forked child; return its process id."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            signal.alarm(60)
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- forks and threads


def test_children_forked_while_other_threads_fetch(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    """A child has the thread that forked it, and none of those that held locks, connections or transactions."""
    dev_cluster.set_delay(0.005)
    made = {f"{number:08}": None for number in range(COUNT)}
    with Cache(tmp_path / "cache", capacity="2MB") as cache:  # half of it fits: there is always something to fetch
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket), cache=cache)
        right = dict(dataset[index] for index in range(0, COUNT, 10))
        stop, failures = threading.Event(), []

        def fetch(seed: int) -> None:
            chance = random.Random(seed)
            try:
                while not stop.is_set():
                    dataset.read_many([chance.randrange(COUNT) for _ in range(12)])
            except BaseException as error:
                failures.append(error)

        def child() -> bool:
            return all(
                dataset[index] == (name, right[name]) for index, name in zip(range(0, COUNT, 10), right, strict=True)
            )

        threads = [threading.Thread(target=fetch, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        try:
            children = []
            for _ in range(12):
                children.append(in_fork(child))
                time.sleep(0.01)
            assert [status_of(pid) for pid in children] == [0] * 12
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert not failures
        assert cache.verify() == []
        assert len(dataset) == len(made)
    assert held_locks(tmp_path / "cache") == []


def test_threads_in_processes_fetch_each_object_once(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.set_delay(0.005)
    with Cache(tmp_path / "cache", capacity="20MB") as cache:
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket), cache=cache)
        dev_cluster.reset_requests()

        def child() -> bool:
            sizes: list[int] = []

            def read(turn: int) -> None:
                rows = [(row + turn * 37) % COUNT for row in range(COUNT)]
                for start in range(0, COUNT, 20):
                    sizes.extend(view.size for view in dataset.read_many(rows[start : start + 20]))

            threads = [threading.Thread(target=read, args=(turn,)) for turn in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(50)
            return sizes == [SIZE] * (4 * COUNT)

        assert [status_of(pid) for pid in [in_fork(child) for _ in range(4)]] == [0] * 4
        assert dev_cluster.requests()["GET"] == COUNT
        assert cache.verify() == []


# ---- handles that are closed


def test_a_handle_that_is_closed_while_another_thread_reads(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    """The reader's bytes are right to the last; then it is told that the handle was closed."""
    dev_cluster.set_delay(0.002)
    for _ in range(5):
        cache = Cache(tmp_path / "cache", capacity="2MB")
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket), cache=cache)
        held, ended = [], []

        def read(dataset: AISMapDataset = dataset, held: list[object] = held, ended: list[object] = ended) -> None:
            try:
                for start in range(10**9):
                    held[:] = dataset.read_many([(start * 7 + row) % COUNT for row in range(7)])
                    assert all(view.size == SIZE for view in held)  # type: ignore[attr-defined]
            except BaseException as error:
                ended.append(type(error))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda held=held: held)
        cache.close()
        for thread in threads:
            thread.join(10)
        assert ended == [CacheClosedError] * 2
        assert all(bytes(view) for view in held)
        held.clear()
        del dataset
    assert held_locks(tmp_path / "cache") == []
    with Cache(tmp_path / "cache") as cache:
        assert cache.verify() == []


# ---- the end of an interpreter


EXIT = """
import sys, threading
from aistore.sdk import Client
from aiscache import AISMapDataset, Cache, DataLoader
endpoint, bucket, path, how = sys.argv[1:]
cache = Cache(path or None, capacity="20MB")
dataset = AISMapDataset(Client(endpoint).bucket(bucket), cache=cache)
if how == "in a thread":
    threading.Thread(target=dataset.read_many, args=(range(len(dataset)),), daemon=True).start()
    print("fetching", flush=True)
    sys.stdin.readline()
else:
    loader = DataLoader(dataset, batch_size=10, num_workers=2, collate_fn=list, prefetch_processes=1,
                        multiprocessing_context=how)
    iterator = iter(loader)
    print("fetching", flush=True)
    sys.stdin.readline()
sys.exit(7)
"""


@pytest.mark.parametrize(
    "how",
    [pytest.param("in a thread", marks=pytest.mark.slow), "fork", pytest.param("spawn", marks=pytest.mark.slow)],
)
def test_an_interpreter_that_exits_in_the_middle_of_fetches(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "cache"
    dev_cluster.set_delay(20)
    command = [sys.executable, "-W", "ignore:This DataLoader will create", "-c", EXIT]
    with subprocess.Popen(
        [*command, dev_cluster.endpoint, bucket, str(path), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "fetching\n"
        wait_until(lambda: dev_cluster.requests()["GET"] > 5)
        everybody = descendants_of(process.pid)
        began = time.monotonic()
        _, errors = process.communicate("go on\n")
        assert time.monotonic() - began < PROMPTLY_S + 3 * BUSY_S, "it waits for the cluster, or torch for a worker"
    assert process.returncode == 7
    assert "aiscache" not in errors, "no traceback of ours; torch may tell of workers that it ended"
    wait_until(lambda: not any(map(is_alive, everybody)), timeout_s=2)
    assert held_locks(path) == []
    nothing_is_left(path, capacity=20_000_000)


# ---- Ctrl-C in a notebook


IMPORTS = """
from aistore.sdk import Client
from aiscache import AISMapDataset, Cache, DataLoader
"""


CLOSE = """
import gc
from aiscache.origin import Origin
cache.close()
Origin.close_all()
del dataset
gc.collect()
assert leaked() == {}, leaked()
"""


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_cells_that_are_interrupted_and_run_again(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, workers: int, persistent: bool
) -> None:
    """A loop over a loader with a pool is stopped three times, at once and in the middle, then runs to its end."""
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.2)
    with Notebook() as notebook:
        notebook.run(
            f"{IMPORTS}\n"
            "mark()\n"
            f"cache = Cache({str(path)!r}, capacity='2MB')\n"
            f"dataset = AISMapDataset(Client({dev_cluster.endpoint!r}).bucket({bucket!r}), cache=cache)\n"
            f"loader = DataLoader(dataset, batch_size=10, shuffle=True, num_workers={workers}, collate_fn=list,\n"
            "                     prefetch_processes=2, lookahead='2MB',\n"
            f"                     persistent_workers={persistent})"
        )
        loop = "for number, batch in enumerate(loader):\n    tell(number)\n    time.sleep(0.01)"
        seen: set[int] = set()
        for batches in (0, 1, 3):
            notebook.begin(loop)
            for number in range(batches):
                assert notebook.next() == number
            if batches == 0:
                wait_until(lambda: dev_cluster.requests()["GET"] > 0)
            seen |= set(descendants_of(notebook.pid))
            assert notebook.interrupt() < PROMPTLY_S + BUSY_S
        dev_cluster.set_delay(0)
        (names,) = notebook.run("tell(sorted(name for batch in loader for name, _ in batch))")
        assert len(names) == len(set(names)) == COUNT
        seen |= set(descendants_of(notebook.pid))
        notebook.run(f"sys.last_value = None\nloader.prefetcher.close()\ndel loader, batch\n{CLOSE}")
        assert pool_processes(notebook.pid) == []
        assert held_locks(path) == []
        status, errors = notebook.close()
    assert status == 0
    assert "aiscache" not in errors, "no traceback of ours"
    wait_until(lambda: not any(map(is_alive, seen)))
    nothing_is_left(path, capacity=2_000_000)


def test_interrupts_in_the_middle_of_a_fork(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    """Python drops what a hook around a fork raises; the loader's workers are started and told, or there are none."""
    path = tmp_path / "cache"
    with Notebook() as notebook:
        notebook.run(
            f"{IMPORTS}\n"
            "import os, signal\n"
            "signals = []\n"
            "os.register_at_fork(after_in_parent=lambda: signals and os.killpg(0, signals.pop()))\n"
            f"cache = Cache({str(path)!r}, capacity='20MB')\n"
            f"dataset = AISMapDataset(Client({dev_cluster.endpoint!r}).bucket({bucket!r}), cache=cache)\n"
            "loader = DataLoader(dataset, batch_size=10, num_workers=2, collate_fn=list, prefetch_processes=1)"
        )
        seen: set[int] = set()
        for forks_before in range(2):
            began = time.monotonic()
            notebook.begin(f"signals[:] = [signal.SIGINT] + {forks_before} * [0]\nfor batch in loader: pass")
            assert notebook.next() == ["interrupted"]
            assert time.monotonic() - began < PROMPTLY_S + BUSY_S
            pool = pool_processes(notebook.pid)
            wait_until(lambda pool=pool: not set(filter(is_alive, descendants_of(notebook.pid))) - set(pool))
        (count,) = notebook.run("tell(sum(len(batch) for batch in loader))")
        assert count == COUNT
        seen |= set(descendants_of(notebook.pid))
        status, errors = notebook.close()
    assert (status, errors) == (0, "")
    wait_until(lambda: not any(map(is_alive, seen)))
    nothing_is_left(path, capacity=20_000_000)


def test_workers_that_lose_the_interrupt(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    """As where the collector calls something that drops KeyboardInterrupt; the notebook keeps the loader's iterator."""
    path, workers = tmp_path / "cache", tmp_path / "workers"
    workers.mkdir()
    with Notebook() as notebook:
        notebook.run(
            f"{IMPORTS}\n"
            "import os, pathlib\n"
            "def lose_interrupts(batch):\n"
            f"    (pathlib.Path({str(workers)!r}) / str(os.getpid())).touch()\n"
            "    while True:\n"
            "        try:\n"
            "            time.sleep(60)\n"
            "        except KeyboardInterrupt:\n"
            "            pass\n"
            f"cache = Cache({str(path)!r}, capacity='20MB')\n"
            f"dataset = AISMapDataset(Client({dev_cluster.endpoint!r}).bucket({bucket!r}), cache=cache)\n"
            "loader = DataLoader(dataset, batch_size=10, num_workers=2, collate_fn=lose_interrupts,\n"
            "                    prefetch_processes=1, multiprocessing_context='fork')"
        )
        notebook.begin("for batch in loader: pass")
        wait_until(lambda: len(os.listdir(workers)) == 2)
        pids = list(map(int, os.listdir(workers)))
        assert all(map(is_alive, pids))
        assert notebook.interrupt() < PROMPTLY_S + BUSY_S
        wait_until(lambda: not any(map(is_alive, pids)), timeout_s=PROMPTLY_S + BUSY_S)
        assert notebook.run("tell(len(dataset[0][1]))") == [SIZE]
        assert notebook.close() == (0, "")


def test_spawned_workers_that_are_interrupted_while_they_start(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    """They end without a word, and torch has no reason to raise an error in the next cell."""
    with Notebook() as notebook:
        notebook.run(
            f"{IMPORTS}\n"
            f"cache = Cache({str(tmp_path)!r}, capacity='20MB')\n"
            f"dataset = AISMapDataset(Client({dev_cluster.endpoint!r}).bucket({bucket!r}), cache=cache)\n"
            "loader = DataLoader(dataset, batch_size=10, num_workers=2, collate_fn=list, prefetch_processes=1,\n"
            "                    multiprocessing_context='spawn')"
        )
        notebook.begin("for batch in loader: pass")
        wait_until(lambda: len(spawned_by(notebook.pid)) == 2)
        pids = spawned_by(notebook.pid)
        assert notebook.interrupt() < PROMPTLY_S + BUSY_S
        wait_until(lambda: not any(map(is_alive, pids)))
        assert notebook.run("tell(sum(len(batch) for batch in loader))") == [COUNT]
        assert notebook.close() == (0, "")


def spawned_by(pid: int) -> list[int]:
    return [found for found in descendants_of(pid) if "spawn_main" in command_of(found)]


def test_reads_that_are_interrupted_at_any_moment(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    """In the middle of a transaction, of a fetch, of giving back what a fetch had taken: the next cell reads right."""
    path = tmp_path / "cache"
    dev_cluster.set_delay(0.002)
    chance = random.Random(5)
    with Notebook() as notebook:
        notebook.run(
            f"{IMPORTS}\n"
            "mark()\n"
            f"cache = Cache({str(path)!r}, capacity='2MB')\n"
            f"dataset = AISMapDataset(Client({dev_cluster.endpoint!r}).bucket({bucket!r}), cache=cache)\n"
            "first = dict(dataset[index] for index in range(0, len(dataset), 5))\n"
        )
        loop = (
            "tell('begun')\n"
            "while True:\n"
            "    rows = random.sample(range(len(dataset)), 12)\n"
            "    for row, view in zip(rows, dataset.read_many(rows)):\n"
            "        assert view.size == 20_000\n"
            "    cache.evict(prefix=f'{random.randrange(10):07}')\n"
        )
        for _ in range(12):
            notebook.begin(loop)
            assert notebook.next() == "begun"
            time.sleep(chance.uniform(0, 0.06))  # no event to wait for: any moment is as good as another
            assert notebook.interrupt() < PROMPTLY_S + BUSY_S
        right, damaged, pending, reserved = notebook.run(
            "sys.last_value = view = None\n"
            "again = {name: dataset[index][1] for index, name in zip(range(0, len(dataset), 5), first)}\n"
            "tell(again == first)\n"
            "tell([ref.name for ref in cache.verify()])\n"
            "space = cache.store()._space\n"
            "tell(sum(writer.pending for writer in (*space._writers.values(), *space._retired)))\n"
            "cache.clear()\n"
            "tell(sum(used for used, _ in cache.store().upkeep.usage().values()))"
        )
        assert (right, damaged) == (True, [])
        assert (pending, reserved) == (0, 0), "whatever a fetch had taken was given back"
        notebook.run(CLOSE)
        assert held_locks(path) == []
        assert notebook.close()[0] == 0
    assert disk_usage(path) < 400_000
