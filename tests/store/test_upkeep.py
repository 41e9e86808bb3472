"""What is done to all of a store at once."""

from __future__ import annotations

from pathlib import Path

from tests.store.objects import Blob, blobs, disk_usage, opened, segment_files


def test_sweep_drops_what_is_picked_and_gives_the_space_back(place: Path) -> None:
    with opened(place, "50MB") as store:
        many = blobs(100, size=50_000)
        for blob in many:
            blob.put(store)
        before = disk_usage(place)
        swept = store.upkeep.sweep(lambda records: [record.ref.name < "o00050" for record in records])
        assert swept.objects == 50
        assert swept.skipped == 0
        assert swept.freed_bytes >= 50 * 48_000
        assert disk_usage(place) <= before - 50 * 45_000
        assert [blob.is_right(store) for blob in many] == [False] * 50 + [True] * 50


def test_swept_segments_can_be_walked_verified_and_repaired(place: Path) -> None:
    with opened(place, "50MB") as store:
        many = blobs(100, size=50_000)
        for blob in many:
            blob.put(store)
        store.upkeep.sweep(lambda records: [int(record.ref.name[1:]) % 3 == 0 for record in records])
        store.upkeep.sweep(lambda records: [int(record.ref.name[1:]) % 5 == 0 for record in records])
        left = [blob for number, blob in enumerate(many) if number % 3 and number % 5]
        assert store.upkeep.verify() == []
        assert sorted(record.ref.name for _, record in store.upkeep.records()) == [blob.ref.name for blob in left]
        assert store.upkeep.repair() == len(left)
        assert all(blob.is_right(store) for blob in left)


def test_clear_removes_all_but_what_is_held(place: Path) -> None:
    with opened(place, "50MB") as store:
        many = blobs(60, size=50_000)
        for blob in many:
            blob.put(store)
        view = many[30].get(store)
        assert store.upkeep.clear().objects == 60
        assert store.upkeep.count() == 0
        assert segment_files(place) == []
        assert all(used == 0 for used, _ in store.upkeep.usage().values())
        assert view is not None
        assert bytes(view) == many[30].data
        del view
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many)


def test_remove_forgets_objects(disk: Path) -> None:
    with opened(disk, "50MB") as store:
        one, other = Blob("one").put(store), Blob("other").put(store)
        del one, other
        store.upkeep.remove([Blob("one").key, Blob("never there").key])
        assert not Blob("one").is_right(store)
        assert Blob("other").is_right(store)


def test_verify_finds_nothing_wrong_in_a_good_store(place: Path) -> None:
    with opened(place, "50MB") as store:
        for blob in blobs(30):
            blob.put(store)
        seen: list[str] = []
        assert store.upkeep.verify(lambda record: seen.append(record.ref.name)) == []
        assert seen == [blob.ref.name for blob in blobs(30)]
