"""Forked, spawned and other processes with one cache: leases, views that outlive things, children that end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aiscache.errors import CacheClosedError
from aiscache.settings import CacheSettings
from aiscache.store import registry, tiers
from aiscache.store.handle import RemoteSegment
from aiscache.store.index import SEALED
from aiscache.store.reclaim import keep_all
from tests.store.objects import Blob, blobs, opened, segment_files
from tests.store.peer import Peer


def in_fork(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return its exit status, -9 if it had to be killed after 30 s."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_and_write(path: str, shared_memory: str, number: int) -> None:
    tiers.SHARED_MEMORY = Path(shared_memory)
    store = registry.acquire(CacheSettings.resolve(path), in_use=keep_all)
    assert all(blob.is_right(store) for blob in blobs(10, size=20_000))
    mine = [Blob(f"{number}/{i}", size=20_000) for i in range(20)]
    for blob in mine:
        blob.put(store)
    assert all(blob.is_right(store) for blob in mine)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_every_kind_read_write_and_seal_at_exit(place: Path, method: str, shared_memory: Path) -> None:
    context = multiprocessing.get_context(method)
    with opened(place, "50MB") as store:
        for blob in blobs(10, size=20_000):
            blob.put(store)
        views = [blob.get(store) for blob in blobs(10, size=20_000)]
        children = [
            context.Process(target=read_and_write, args=(str(place), str(shared_memory), number)) for number in range(2)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        assert all(Blob(f"{n}/{i}", size=20_000).is_right(store) for n in range(2) for i in range(20))
        rows = store._reclaimer.rows()
        assert sorted(row.state for row in rows.values()) == [1, SEALED, SEALED]
        assert all(
            view is not None and bytes(view) == b.data for view, b in zip(views, blobs(10, size=20_000), strict=True)
        )
        Blob("still writes").put(store)


def test_a_child_that_just_exits_does_not_disturb_its_parent(disk: Path) -> None:
    with opened(disk, "50MB") as store, Peer(disk) as peer:
        view = Blob("a").put(store)
        reservation = Blob("pending").filled(store)
        assert in_fork(lambda: None) == 0
        assert peer.ask("sweep", {"a"}, False).skipped == 1, "the parent's lease is still there"
        store.publish([reservation])
        assert Blob("pending").is_right(store)
        assert bytes(view) == Blob("a").data


def test_an_inherited_handle_is_closed_in_the_child_and_open_in_the_parent(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        Blob("a").put(store)
        generation = registry.generation()

        def child() -> None:
            assert registry.generation() == generation + 1
            with pytest.raises(CacheClosedError):
                Blob("a").get(store)
            with opened(disk) as own:
                assert own is not store
                assert Blob("a").is_right(own)
                registry.release(store)
                assert Blob("a").is_right(own)

        assert in_fork(child) == 0
        assert Blob("a").is_right(store)


def test_a_grandchild_works_too(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        Blob("a").put(store)

        def child() -> None:
            with opened(disk) as own:
                Blob("b").put(own)
                assert in_fork(grandchild) == 0
                assert Blob("c").is_right(own)

        def grandchild() -> None:
            with opened(disk) as own:
                assert Blob("a").is_right(own)
                assert Blob("b").is_right(own)
                Blob("c").put(own)

        assert in_fork(child) == 0
        assert Blob("c").is_right(store)


def test_inherited_views_stay_leased_when_the_parent_lets_go(disk: Path) -> None:
    """The child's view must keep others from punching holes in its segment when the parent has no lease any more."""
    one, other = Blob("one", size=50_000), Blob("other", size=50_000)
    ready, go = os.pipe(), os.pipe()
    with Peer(disk, "50MB") as peer:
        with opened(disk) as store:
            held = {"view": one.put(store)}
            other.put(store)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(30)  # should the parent fail meanwhile
                    os.write(ready[1], b"x")
                    os.read(go[0], 1)
                    status = 0 if bytes(held["view"]) == one.data else 2
                    del held
                    os.write(ready[1], b"x")
                    os.read(go[0], 1)
                finally:
                    os._exit(status)
            os.read(ready[0], 1)
            held.clear()
        swept = peer.ask("sweep", {"one"}, False)
        assert (swept.objects, swept.skipped) == (0, 1)
        os.write(go[1], b"x")
        os.read(ready[0], 1)
        assert peer.ask("sweep", {"one"}, False).objects == 1
        os.write(go[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert peer.ask("get", [other]) == [True]
    for fd in (*ready, *go):
        os.close(fd)


def test_views_outlive_close_and_are_not_punched(disk: Path) -> None:
    one, other = Blob("one", size=50_000), Blob("other", size=50_000)
    with Peer(disk, "50MB") as peer:
        with opened(disk) as store:
            view = one.put(store)
            other.put(store)
        assert peer.ask("sweep", {"one"}, False).skipped == 1
        assert bytes(view) == one.data
        del view
        assert peer.ask("sweep", {"one"}, False).objects == 1
        assert peer.ask("get", [other]) == [True]


def test_a_reservation_outlives_close_without_a_crash(disk: Path) -> None:
    with Peer(disk, "50MB") as peer:
        with opened(disk) as store:
            Blob("before").put(store)
            reservation = Blob("pending", size=500_000).reserve(store)
            assert reservation is not None
        peer.ask("sweep", {"before"}, False)
        (file,) = segment_files(disk)  # neither removed nor cut off by the sweep
        assert file.stat().st_size > 500_000
        reservation.fill(Blob("pending", size=500_000).data)
        del reservation
        peer.ask("sweep", {"before"}, False)
    assert segment_files(disk) == []


@pytest.mark.parametrize("how", ["lets go", "is killed"])
def test_what_another_process_has_mapped_is_not_swept(place: Path, how: str) -> None:
    many = blobs(5)
    with opened(place, "50MB") as store, Peer(place) as peer:
        for blob in many:
            blob.put(store)
        store.upkeep.sweep(keep_all)  # seals
        assert peer.ask("hold", many[0])
        assert store.upkeep.sweep(lambda records: [True] * len(records)).skipped == 5
        assert peer.ask("held_is_right", many[0])
        if how == "lets go":
            peer.ask("let_go")
        else:
            peer.kill()
        assert store.upkeep.sweep(lambda records: [True] * len(records)).objects == 5
        assert segment_files(place) == []


@pytest.mark.parametrize("act", ["sweep with force", "clear"])
def test_what_another_process_holds_survives_force(place: Path, act: str) -> None:
    many = blobs(5, size=30_000)
    with opened(place, "50MB") as store, Peer(place) as peer:
        for blob in many:
            blob.put(store)
        store.upkeep.sweep(keep_all)
        assert peer.ask("hold", many[0])
        if act == "clear":
            assert store.upkeep.clear().objects == 5
        else:
            assert store.upkeep.sweep(lambda records: [r.ref.name < "o00003" for r in records], force=True).objects == 3
        assert not many[0].is_right(store)
        for blob in many[:3]:
            blob.put(store)
        assert peer.ask("held_is_right", many[0])
        assert peer.ask("get", many[:3]) == [True] * 3


def test_clear_under_a_writer_of_another_process(place: Path) -> None:
    many = blobs(40, size=100_000)
    with opened(place, "50MB") as store, Peer(place) as peer:
        peer.ask("put", many[:3])
        assert peer.ask("reserve", many[3])
        store.upkeep.clear()
        assert segment_files(place) == []
        peer.ask("publish", many[3])
        assert peer.ask("put", many[4:]) == [True] * 36, "it goes on in a new segment"
        assert [blob.is_right(store) for blob in many] == [False] * 4 + [True] * 36


def test_an_object_that_is_swept_between_the_lookup_and_the_mapping_of_its_segment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment is mapped for the other object of the batch, which is still there."""
    swept, kept = many = blobs(2, size=50_000)
    with opened(place, "50MB") as store, Peer(place) as peer:
        for blob in many:
            blob.put(store)
        store.upkeep.sweep(keep_all)  # seals, and unmaps
        look_up = store._index.values

        def look_up_then_sweep(keys: Sequence[bytes]) -> Any:
            found = look_up(keys)
            assert peer.ask("sweep", {swept.ref.name}, False).objects == 1
            return found

        monkeypatch.setattr(store._index, "values", look_up_then_sweep)
        (right, gone), _ = store.get_many([kept.key, swept.key], [kept.digest, swept.digest])
        assert right is not None
        assert bytes(right) == kept.data
        assert gone is None


def test_a_place_in_a_segment_that_grew_and_was_removed_since_it_was_mapped(place: Path) -> None:
    """Its length cannot be learned any more, so the place is gone; it is no damage."""
    many = blobs(40, size=20_000)
    with opened(place, "6MB") as store, Peer(place) as peer:
        peer.ask("put", many[:1])
        view = many[0].get(store)
        assert view is not None
        peer.ask("put", many[1:])
        (first, *_, last) = store.segments_of([blob.key for blob in many], [blob.digest for blob in many])
        assert first == last
        record = max((record for _, record in store.upkeep.records()), key=lambda record: record.payload)
        handle = view.base.segment
        peer.ask("clear")
        told = RemoteSegment(handle.home, handle.segment_id, handle.tier)
        assert told.view(generation=handle.generation, offset=record.payload, length=record.length) is None


def test_forks_in_the_middle_of_other_threads_transactions(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        many = blobs(50, size=5_000)
        for blob in many:
            blob.put(store)
        stop, failures = threading.Event(), []

        def work(number: int) -> None:
            turn = 0
            try:
                while not stop.is_set():
                    turn += 1
                    many[turn % 50].is_right(store)
                    Blob(f"{number}", size=5_000, version=turn).put(store)
                    if turn % 20 == 0:
                        store.trim()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()

        def child() -> None:
            with opened(disk) as own:
                assert all(blob.is_right(own) for blob in many[:10])
                Blob("child", size=100).put(own)

        try:
            statuses = [in_fork(child) for _ in range(25)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert statuses == [0] * 25
        assert failures == []
        assert store.upkeep.verify() == []


def test_threads_that_read_write_trim_and_sweep(disk: Path) -> None:
    names = {f"o{number:05}" for number in range(0, 100, 7)}
    with opened(disk, "20MB", in_use=lambda records: [r.ref.name in names for r in records]) as store:
        many = blobs(100, size=100_000)
        failures: list[BaseException] = []

        def run(work: Callable[[int], object]) -> None:
            try:
                for turn in range(150):
                    work(turn)
            except BaseException as error:
                failures.append(error)

        def write(turn: int) -> None:
            many[turn * 7 % 100].offer(store)

        def read(turn: int) -> None:
            many[turn * 3 % 100].is_right(store)

        def read_many(turn: int) -> None:
            some = many[turn % 50 :: 5]
            views, _ = store.get_many([b.key for b in some], [b.digest for b in some])
            for view, blob in zip(views, some, strict=True):
                assert view is None or bytes(view) == blob.data

        def tidy(turn: int) -> None:
            store.trim()
            if turn % 30 == 0:
                store.upkeep.sweep(lambda records: [record.ref.name.endswith("3") for record in records])

        threads = [threading.Thread(target=run, args=(work,)) for work in (write, write, read, read_many, tidy)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.upkeep.verify() == []


def test_one_store_per_process_and_directory(disk: Path) -> None:
    with opened(disk, "50MB") as store, opened(disk) as same:
        assert same is store
    with pytest.raises(CacheClosedError):
        Blob("a").get(store)
    with opened(disk) as another:
        assert another is not store


def test_many_processes_open_a_new_cache_at_once(place: Path) -> None:
    barrier = os.pipe()
    pids = []
    for number in range(16):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(barrier[1])
                os.read(barrier[0], 1)
                with opened(place, "50MB") as store:
                    Blob(f"o{number}").put(store)
                    status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(barrier[1])
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 16
    os.close(barrier[0])
    with opened(place) as store:
        assert all(Blob(f"o{number}").is_right(store) for number in range(16))
