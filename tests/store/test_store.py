"""What every store does, wherever its directory lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiscache.errors import CacheClosedError
from aiscache.store import DISK, MEMORY
from tests.store.objects import Blob, blobs, disk_usage, opened, segment_files
from tests.store.peer import Peer

NAMES = ["a", "dir/a b/c.tar", "ünïcode/日本語", "x" * 1500, "\udcff broken", ".", "..", "%2F", "new\nline", "\0"]


def test_put_then_get_gives_the_bytes(place: Path) -> None:
    with opened(place, "50MB") as store:
        blob = Blob("a", size=100_000)
        assert bytes(blob.put(store)) == blob.data
        view = blob.get(store)
        assert view is not None
        assert bytes(view) == blob.data
        assert not view.flags.writeable


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind(disk: Path, name: str) -> None:
    with opened(disk, "50MB") as store:
        blob = Blob(name)
        blob.put(store)
        assert blob.is_right(store)
        assert [record.ref.name for _, record in store.upkeep.records()] == [name]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 4097, 1_000_000, 3_000_000])
def test_sizes_from_nothing_to_more_than_a_segment(place: Path, size: int) -> None:
    with opened(place, "20MB") as store:  # its segments grow to 1 MiB
        before, blob, after = Blob("before"), Blob("it", size=size), Blob("after")
        for one in (before, blob, after):
            one.put(store)
        assert all(one.is_right(store) for one in (before, blob, after))


def test_another_version_replaces_and_counts_the_old_one_as_dead(place: Path) -> None:
    with opened(place, "50MB") as store:
        old, new = Blob("a", size=500_000), Blob("a", size=500_000, version=2)
        view = old.put(store)
        new.put(store)
        assert old.get(store) is None
        assert new.is_right(store)
        assert store.upkeep.count() == 1
        assert bytes(view) == old.data, "who holds the old version keeps it"
        del view
        store.upkeep.sweep(lambda records: [False] * len(records))
        usage = store.upkeep.usage()
        assert usage[min(usage, key=lambda n: store.tiers[n].path != place / "segments")][0] < 600_000
        assert new.is_right(store)


def test_contains_is_about_the_version_and_counts_nothing(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        Blob("a").put(store)
        assert store.contains(Blob("a").key, Blob("a").digest)
        assert not store.contains(Blob("a", version=2).key, Blob("a", version=2).digest)
        assert not store.contains(Blob("b").key, Blob("b").digest)
        assert store.counters.process().hits == 0


def test_get_many_answers_in_order(place: Path) -> None:
    with opened(place, "50MB") as store:
        known = blobs(50)
        store.publish([blob.filled(store) for blob in known])
        asked = [known[7], Blob("unknown"), known[3], Blob("o00004", version=9), known[7]]
        views, misses = store.get_many([blob.key for blob in asked], [blob.digest for blob in asked])
        assert [view is not None and bytes(view) == blob.data for view, blob in zip(views, asked, strict=True)] == [
            True, False, True, False, True,
        ]  # fmt: skip
        assert misses == 2
        assert store.get_many([], []) == ([], 0)


def test_hits_are_counted_by_tier_and_in_bytes(place: Path) -> None:
    with opened(place, "50MB") as store:
        for blob in blobs(3):
            blob.put(store)
            blob.get(store)
        stats = store.counters.process()
        assert stats.hits == 3
        assert stats.bytes_memory + stats.bytes_disk == 3000
        assert (stats.hits_memory == 3) == store.directory.in_memory


def test_an_object_larger_than_the_cache_is_not_taken(place: Path) -> None:
    with opened(place, "5MB") as store:
        assert Blob("huge", size=5_000_000).reserve(store) is None
        assert store.counters.process().rejected == 1
        assert segment_files(place) == []
        assert Blob("small").offer(store)


def test_full_keeps_what_it_has(place: Path) -> None:
    with opened(place, "5MB", in_use=lambda records: [True] * len(records)) as store:
        taken = [blob.offer(store) for blob in blobs(100, size=100_000)]
        assert taken.index(False) >= 40
        assert [blob.is_right(store) for blob in blobs(100, size=100_000)] == taken


def test_what_nobody_uses_makes_room(place: Path) -> None:
    used = {f"o{number:05}" for number in range(20)}
    with opened(place, "5MB", in_use=lambda records: [r.ref.name in used for r in records]) as store:
        many = blobs(200, size=100_000)
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many[:20])
        assert many[-1].is_right(store)
        assert store.counters.process().evicted_objects > 100


def test_a_reservation_given_up_gives_its_space_back(place: Path) -> None:
    with opened(place, "5MB") as store:
        for _ in range(50):  # ten times what fits
            reservation = Blob("a", size=1_000_000).reserve(store)
            assert reservation is not None
            reservation.write([b"x" * 10])
            store.give_up(reservation)
            del reservation
        assert store.upkeep.count() == 0
    assert disk_usage(place / "segments") < 10_000


def test_reservations_given_up_between_others_come_free_by_a_sweep(place: Path) -> None:
    with opened(place, "20MB") as store:
        odd, even = blobs(20, size=200_000)[1::2], blobs(20, size=200_000)[::2]
        pairs = [(one.filled(store), other.filled(store)) for one, other in zip(odd, even, strict=True)]
        for one, other in pairs:
            store.give_up(one)
            store.publish([other])
        del pairs, one, other
        store.upkeep.sweep(lambda records: [False] * len(records))
        assert all(blob.is_right(store) for blob in even)
        assert not any(blob.is_right(store) for blob in odd)
        assert disk_usage(place / "segments") < 10 * 200_000 + 100_000


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_put_after_a_failed_batch_is_right(place: Path, order: int) -> None:
    """The segment grew in the middle of the batch, and all of it was given up."""
    with opened(place, "20MB") as store:  # its segments grow to 1 MiB
        before = Blob("before")
        before.put(store)
        for turn in range(3):
            failed = [Blob(f"o{number}", size=size) for number, size in enumerate((30_000, 30_000, 700_000))]
            for reservation in [blob.filled(store) for blob in failed][::order]:
                store.give_up(reservation)
            after = Blob(f"after {turn}", size=50_000)
            assert bytes(after.put(store)) == after.data
        assert before.is_right(store)
        assert store.upkeep.verify() == []


def test_published_survives_in_a_fresh_process(place: Path) -> None:
    many = blobs(100, size=20_000)
    with Peer(place, "50MB") as peer:
        assert all(peer.ask("put", many))
    with opened(place) as store:
        assert all(blob.is_right(store) for blob in many)
        assert store.upkeep.count() == 100
        usage = store.upkeep.usage()
        assert usage[min(usage, key=lambda n: store.tiers[n].path != place / "segments")][1] == 50_000_000


def test_what_another_process_publishes_is_seen_at_once(place: Path) -> None:
    with Peer(place, "50MB") as peer, opened(place) as store:
        for blob in blobs(300, size=30_000):
            assert not blob.is_right(store)
            assert peer.ask("put", [blob]) == [True]
            assert blob.is_right(store)


def test_a_closed_store_says_so(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        blob = Blob("a")
        blob.put(store)
    for use in (
        lambda: blob.get(store),
        lambda: store.get_many([blob.key], [blob.digest]),
        lambda: store.contains(blob.key, blob.digest),
        lambda: blob.reserve(store),
        lambda: store.upkeep.sweep(lambda records: [True] * len(records)),
        store.upkeep.verify,
        store.upkeep.repair,
    ):
        with pytest.raises(CacheClosedError, match="was closed"):
            use()
    store.close()


def test_publishing_into_a_closed_store_still_gives_the_bytes(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        reservation = Blob("a").reserve(store)
        assert reservation is not None
    reservation.fill(Blob("a").data)
    with pytest.raises(CacheClosedError):
        store.publish([reservation])


def test_memory_is_filled_first_and_disk_after_it(disk: Path, shared_memory: Path) -> None:
    with opened(disk, "20MB", memory="5MB", in_use=lambda records: [True] * len(records)) as store:
        many = blobs(150, size=100_000)
        assert all(blob.offer(store) for blob in many)
        tier_of = {record.ref.name: tier for tier, record in store.upkeep.records()}
        assert {tier_of[blob.ref.name] for blob in many[:30]} == {MEMORY}
        assert {tier_of[blob.ref.name] for blob in many[60:]} == {DISK}
        assert disk_usage(shared_memory) <= 5_000_000
        assert disk_usage(disk) <= 20_000_000
        assert all(blob.is_right(store) for blob in many)
        assert store.counters.process().hits_memory > 30
        store.upkeep.clear()
        assert disk_usage(shared_memory) < 20_000


def test_an_object_too_large_for_memory_goes_to_disk(disk: Path) -> None:
    with opened(disk, "50MB", memory="2MB") as store:
        big = Blob("big", size=3_000_000)
        big.put(store)
        assert [tier for tier, _ in store.upkeep.records()] == [DISK]
        assert big.is_right(store)


def test_a_memory_tier_that_vanished_is_a_miss_and_heals(disk: Path, shared_memory: Path) -> None:
    many = blobs(20, size=50_000)
    with opened(disk, "20MB", memory="5MB") as store:
        for blob in many:
            blob.put(store)
    for path in shared_memory.rglob("*.seg"):
        path.unlink()
    with opened(disk) as store:
        assert not any(blob.is_right(store) for blob in many)
        assert store.upkeep.count() == 0
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many)
