"""The capacity is a hard bound on what the directory takes, and nearly all of it can be used."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from aiscache.store import Record
from tests.store.objects import Blob, blobs, disk_usage, opened
from tests.store.peer import Peer


def everything_is_used(records: Sequence[Record]) -> Sequence[bool]:
    return [True] * len(records)


def fill(path: Path, peers: list[Peer], *, capacity: int, sizes: tuple[int, int], batch: int) -> int:
    """Let the peers write until all say that it is full; return the most that was ever taken."""
    chosen = random.Random(7)
    most, number = 0, 0
    open_peers = set(peers)
    asked: dict[Peer, int] = {}
    while open_peers:
        for peer in list(open_peers):
            many = [Blob(f"p{number + i:07}", size=chosen.randint(*sizes)) for i in range(batch)]
            number += batch
            peer.tell("use", {f"p{i:07}" for i in range(number)})
            peer.answer()
            peer.tell("put", many)
            asked[peer] = asked.get(peer, 0) + 1
        for _ in range(4):
            most = max(most, disk_usage(path))
            assert most <= capacity
            time.sleep(0.001)
        for peer in list(open_peers):
            if not any(peer.answer()):
                open_peers.remove(peer)
    return max(most, disk_usage(path))


def test_four_writers_never_exceed_the_capacity_and_use_nearly_all_of_it(place: Path) -> None:
    capacity = 200_000_000
    peers = [Peer(place, capacity) for _ in range(4)]
    most = fill(place, peers, capacity=capacity, sizes=(20_000, 180_000), batch=40)
    assert 0.97 * capacity <= most <= capacity
    for peer in peers:
        peer.ask("close")
        assert peer.wait() == 0
    assert 0.97 * capacity <= disk_usage(place) <= capacity
    with opened(place) as store:
        payload = sum(record.length for _, record in store.upkeep.records())
        assert payload >= 0.97 * capacity
        assert store.upkeep.verify() == []


def test_small_objects_with_the_index_they_need_stay_within_the_capacity(place: Path) -> None:
    capacity = 8_000_000
    peers = [Peer(place, capacity) for _ in range(3)]
    most = fill(place, peers, capacity=capacity, sizes=(0, 1500), batch=400)
    assert most >= 0.9 * capacity
    for peer in peers:
        peer.kill()
    assert disk_usage(place) <= capacity


@pytest.mark.parametrize("capacity", [1, 5_000, 100_000, 300_000, 1_000_000])
def test_tiny_capacities_hold_too(place: Path, capacity: int) -> None:
    with opened(place, capacity, in_use=everything_is_used) as store:
        empty = disk_usage(place)
        taken = [Blob(f"o{number}", size=3_000).offer(store) for number in range(500)]
        assert disk_usage(place) <= max(capacity, empty)
        assert any(taken) or capacity < 300_000


def test_eviction_under_pressure_stays_within_the_capacity(place: Path) -> None:
    capacity = 20_000_000
    with opened(place, capacity) as store:
        chosen = random.Random(3)
        for number in range(700):
            blob = Blob(f"o{number % 300}", size=chosen.randint(1_000, 150_000), version=number)
            blob.offer(store)
            if number % 10 == 0:
                assert disk_usage(place) <= capacity
            assert blob.is_right(store) or number < 2


def test_in_flight_bytes_count(place: Path) -> None:
    capacity = 10_000_000
    with opened(place, capacity, in_use=everything_is_used) as store, Peer(place) as peer:
        mine = [reservation for i in range(40) if (reservation := Blob(f"m{i}", size=200_000).reserve(store))]
        theirs = [peer.ask("reserve", Blob(f"t{i}", size=200_000)) for i in range(40)]
        assert disk_usage(place) <= capacity
        assert len(mine) + sum(theirs) in (47, 48, 49)
        for reservation in mine:
            store.give_up(reservation)
        peer.kill()


def test_a_smaller_capacity_is_reached_by_evicting(disk: Path) -> None:
    many = [Blob(f"o{i}", size=100_000) for i in range(150)]
    with opened(disk, "20MB") as store:
        assert all(blob.offer(store) for blob in many)
    with opened(disk, "5MB") as store:
        assert Blob("new", size=100_000).offer(store)
        assert disk_usage(disk) <= 5_000_000
        assert Blob("new", size=100_000).is_right(store)


def test_nothing_is_removed_from_one_tier_while_the_other_has_room(disk: Path) -> None:
    many = blobs(30, size=100_000)
    with opened(disk, "10MB", memory="1MB") as store:
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many)
        assert store.counters.process().evicted_objects == 0
        assert all(used > 800_000 for used, _ in store.upkeep.usage().values())


def test_the_index_of_what_lies_in_memory_stays_within_the_capacity_on_disk(disk: Path) -> None:
    capacity = 3_000_000
    with opened(disk, capacity) as store:
        while Blob(f"d{len(list(store.upkeep.records()))}", size=100_000).offer(store):
            if store.counters.process().evicted_objects:
                break
    with opened(disk, capacity, memory="50MB") as store:
        small = blobs(15_000, size=500)
        for number, blob in enumerate(small):
            assert blob.offer(store)
            if number % 100 == 0:
                assert disk_usage(disk) <= capacity
        assert disk_usage(disk) <= capacity
        assert sum(blob.is_right(store) for blob in small) > 14_000


def test_the_capacity_holds_while_a_reader_is_held_up(place: Path) -> None:
    """LMDB uses no page again meanwhile: what has its space already is published only as far as the index may grow."""
    capacity = 2_000_000
    with opened(place, capacity) as store, Peer(place) as peer:
        many = blobs(80, size=20_000)
        reservations = [blob.filled(store) for blob in many]
        peer.ask("begin_reading")
        for blob, reservation in zip(many, reservations, strict=True):
            assert bytes(store.publish([reservation])[0]) == blob.data
            assert disk_usage(place) <= capacity
        kept = sum(blob.is_right(store) for blob in many)
        assert 5 <= kept < 80
        assert store.counters.process().rejected == 80 - kept
        peer.ask("end_reading")
        del reservations, reservation
        store.trim()
        store.trim()
        assert Blob("after that", size=20_000).offer(store)
        assert Blob("after that", size=20_000).is_right(store)
        assert disk_usage(place) <= capacity
        peer.kill()


def test_a_batch_that_fills_the_cache_is_published_whole(place: Path) -> None:
    capacity = 2_000_000
    with opened(place, capacity, in_use=everything_is_used) as store:
        many = blobs(2_000, size=1_000)
        reservations = [reservation for blob in many if (reservation := blob.reserve(store))]
        for blob, reservation in zip(many, reservations, strict=False):
            reservation.fill(blob.data)
        store.keep(reservations)
        assert len(reservations) > 1_400
        assert sum(blob.is_right(store) for blob in many) == len(reservations)
        assert disk_usage(place) <= capacity
