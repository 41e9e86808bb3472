"""Counters: one slot per process, counts that outlive their process, and sums."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from aiscache.stats import COUNTERS, LATENCY_EDGES_MS, MEANINGS, CacheStats, Counters


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "stats")


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_counting() -> None:
    stats = CacheStats(hits_memory=3, hits_disk=1, misses=4, stall_ns=1_500_000_000)
    assert stats.hits == 4
    assert stats.hit_ratio == 0.5
    assert stats.stall_s == 1.5
    assert CacheStats().hit_ratio == 0.0
    assert stats - CacheStats(hits_memory=1, misses=4) == CacheStats(hits_memory=2, hits_disk=1, stall_ns=1_500_000_000)


def test_as_json() -> None:
    told = json.loads(json.dumps(CacheStats(misses=2).asdict()))
    assert told["misses"] == 2
    assert set(told) == {*COUNTERS, "hits", "hit_ratio", "stall_s"}


def test_fetches_are_counted_by_how_long_they_took(path: str) -> None:
    counters = Counters(path)
    assert in_child(lambda: Counters(path).took(0.0005)) == 0
    for seconds in (0.0, 0.001, 0.0039, 0.5, 1.024, 1e6):
        counters.took(seconds)
    told = dict(zip([*LATENCY_EDGES_MS, None], counters.latencies(), strict=True))
    assert {edge: count for edge, count in told.items() if count} == {1: 2, 2: 1, 4: 1, 512: 1, None: 2}
    assert counters.machine() == counters.process() == CacheStats()
    counters.close()


def test_loggers_of_metrics_take_it_as_it_is() -> None:
    """TensorBoard's `add_scalar(name, value)` and W&B's `log(dict)` want plain numbers under plain names."""
    told = CacheStats(hits_disk=3, misses=1, stall_ns=2_000_000_000).asdict()
    assert {type(value) for value in told.values()} == {int, float}
    assert all(name.replace("_", "").isalnum() for name in told)
    assert (told["hits"], told["hit_ratio"], told["stall_s"]) == (3, 0.75, 2.0)
    assert not any(meaning.startswith("their") for meaning in MEANINGS.values())  # each stands alone
    assert tuple(MEANINGS) == COUNTERS


def test_every_counter_is_counted_by_its_name(path: str) -> None:
    counters = Counters(path)
    for amount, name in enumerate(COUNTERS, start=1):
        counters.add(name, amount)
    expected = CacheStats(**{name: amount for amount, name in enumerate(COUNTERS, start=1)})
    assert counters.process() == counters.machine() == expected
    counters.close()


def test_hits_by_tier(path: str) -> None:
    counters = Counters(path)
    counters.hit(0, 2, 100)
    counters.hit(1, 3, 50)
    assert counters.process() == CacheStats(hits_memory=2, bytes_memory=100, hits_disk=3, bytes_disk=50)
    counters.close()


def test_the_machine_is_the_sum_over_processes(path: str) -> None:
    mine = Counters(path)
    mine.add("misses", 5)

    def child() -> None:
        theirs = Counters(path)
        theirs.add("misses", 7)
        assert theirs.process().misses == 7
        assert theirs.machine().misses >= 12

    assert in_child(child) == 0
    assert in_child(child) == 0
    assert mine.process().misses == 5
    assert mine.machine().misses == 19
    mine.close()


def test_a_killed_process_leaves_its_counts(path: str) -> None:
    def child() -> None:
        Counters(path).add("fetched_bytes", 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(child) == -signal.SIGKILL
    counters = Counters(path)
    assert counters.machine().fetched_bytes == 1000
    assert counters.process().fetched_bytes == 0
    counters.close()


def test_a_slot_is_taken_over_where_it_ended(path: str) -> None:
    for _ in range(50):
        assert in_child(lambda: Counters(path).add("misses")) == 0
    assert os.path.getsize(path) == 256, "one slot serves all that live one after the other"
    counters = Counters(path)
    assert counters.machine().misses == 50
    assert counters.process() == CacheStats()
    counters.add("misses")
    assert (counters.process().misses, counters.machine().misses) == (1, 51)
    counters.close()


def test_living_processes_have_slots_of_their_own(path: str) -> None:
    many = [Counters(path) for _ in range(40)]  # more than a page of them
    for number, counters in enumerate(many):
        counters.add("waits", number)
    assert [counters.process().waits for counters in many] == list(range(40))
    assert many[0].machine().waits == sum(range(40))
    for counters in many:
        counters.close()


def test_threads_lose_no_count(path: str) -> None:
    counters = Counters(path)

    def count() -> None:
        for _ in range(5000):
            counters.add("misses")
            counters.hit(0, 1, 10)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.process() == CacheStats(misses=20_000, hits_memory=20_000, bytes_memory=200_000)
    counters.close()


def test_a_file_that_cannot_grow_counts_in_memory(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiscache.stats.os.posix_fallocate", full)
    counters = Counters(path)
    counters.add("misses")
    assert counters.process().misses == 1
    assert counters.machine().misses == 0
    counters.close()


def test_close_frees_the_file_and_keeps_what_was_counted(path: str) -> None:
    counters = Counters(path)
    counters.add("misses", 3)
    counters.close()
    assert not any(path in os.readlink(link) for link in _descriptors())
    assert path not in Path("/proc/self/maps").read_text()
    counters.add("misses")
    assert counters.machine().misses == 3
    counters.close()


def _descriptors() -> list[str]:
    return [link for fd in os.listdir("/proc/self/fd") if os.path.lexists(link := f"/proc/self/fd/{fd}")]
