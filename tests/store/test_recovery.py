"""A cache that something bad happened to gives right bytes or none, and heals itself."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aiscache.errors import CacheDirectoryError
from aiscache.store import recovery
from aiscache.store.index import OPEN, SEALED, SUSPECT
from aiscache.store.pages import check_pages
from tests.store.objects import Blob, blobs, disk_usage, opened, segment_files
from tests.store.peer import Peer


def filled(path: Path, *, count: int = 30, size: int = 50_000) -> list[Blob]:
    many = blobs(count, size=size)
    with Peer(path, "50MB") as peer:
        assert all(peer.ask("put", many))
    return many


def states(store: object) -> set[int]:
    return {row.state for row in store._reclaimer.rows().values()}  # type: ignore[attr-defined]


def restart_machine(path: Path) -> None:
    (path / "boot").write_text("another boot")


def flip_payload_byte(path: Path, blob: Blob) -> None:
    for file in segment_files(path):
        data = file.read_bytes()
        at = data.find(blob.data)
        if at >= 0:
            with file.open("r+b") as segment:
                segment.seek(at + blob.size // 2)
                segment.write(bytes([blob.data[blob.size // 2] ^ 1]))
            return
    raise AssertionError(f"{blob} is in no segment")


@pytest.mark.parametrize("damage", [b"", b"garbage" * 3000, b"\0" * 65536], ids=["empty", "garbage", "zeros"])
def test_an_unreadable_index_is_rebuilt_with_one_warning(
    place: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    many = filled(place)
    (place / "index" / "data.mdb").write_bytes(damage)
    with caplog.at_level(logging.WARNING), opened(place) as store:
        assert all(blob.is_right(store) for blob in many)
    assert len(caplog.records) <= 1


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_an_index_that_was_cut_off_is_rebuilt(place: Path, keep: float) -> None:
    many = filled(place, count=2000, size=100)
    data = place / "index" / "data.mdb"
    os.truncate(data, int(data.stat().st_size * keep) & -4096)
    with opened(place) as store:
        assert all(blob.is_right(store) for blob in many)


def test_a_deleted_index_is_rebuilt(place: Path) -> None:
    many = filled(place)
    shutil.rmtree(place / "index")
    with opened(place) as store:
        assert all(blob.is_right(store) for blob in many)
        assert store.upkeep.count() == len(many)
        assert Blob("new").put(store) is not None
    with Peer(place) as peer:
        assert all(peer.ask("get", [*many, Blob("new")]))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files this process looks at page by page, from here on."""
    seen = []

    def look(path: Path, **how: Any) -> None:
        seen.append(path)
        check_pages(path, **how)

    monkeypatch.setattr(recovery, "check_pages", look)
    return seen


def reopened(path: Path, looks: list[Path]) -> bool:
    """Open and close a cache; tell whether its pages were looked at."""
    before = len(looks)
    with opened(path):
        pass
    return len(looks) > before


def test_the_pages_of_an_index_are_looked_at_only_if_it_is_not_as_the_last_user_left_it(
    place: Path, looks: list[Path]
) -> None:
    many = filled(place)
    assert not reopened(place, looks)
    with opened(place) as store:
        assert all(blob.is_right(store) for blob in many)
        assert Blob("new").put(store) is not None
    assert not reopened(place, looks)
    data = place / "index" / "data.mdb"
    told = data.stat()
    os.utime(data, ns=(told.st_atime_ns, told.st_mtime_ns))  # the time of change is the kernel's
    assert reopened(place, looks)
    assert not reopened(place, looks)
    (place / "index" / "closed").write_text("garbage")
    assert reopened(place, looks)
    (place / "index" / "closed").unlink()
    assert reopened(place, looks)


def test_the_pages_of_an_index_are_looked_at_after_its_last_user_was_killed(place: Path, looks: list[Path]) -> None:
    many = filled(place)
    with Peer(place) as peer:
        assert all(peer.ask("put", [Blob("new")]))
        assert not reopened(place, looks)  # the peer found it whole, and has it open
        peer.kill()
    assert reopened(place, looks)
    with opened(place) as store:
        assert all(blob.is_right(store) for blob in many)


def test_an_index_that_is_cut_off_while_it_is_open_is_looked_at_by_the_next_user(
    place: Path, looks: list[Path]
) -> None:
    many = filled(place, count=2000, size=100)
    data = place / "index" / "data.mdb"
    with opened(place):
        os.truncate(data, data.stat().st_size // 2 & -4096)
    assert reopened(place, looks)
    with opened(place) as store:
        assert all(blob.is_right(store) for blob in many)


def test_an_index_that_cannot_be_opened_for_another_reason_is_left_alone(disk: Path) -> None:
    many = filled(disk)
    before = (disk / "index" / "data.mdb").read_bytes()
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from tests.store.objects import opened\n"
        "from aiscache.errors import CacheDirectoryError\n"
        "limit = len(__import__('os').listdir('/proc/self/fd'))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 1, limit + 1))\n"
        "try:\n"
        "    with opened(Path(sys.argv[1])): pass\n"
        "except CacheDirectoryError as error: print(error)\n"
    )
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(disk)], cwd=root, capture_output=True, text=True)
    assert "cannot be opened" in done.stdout, done.stderr
    assert (disk / "index" / "data.mdb").read_bytes() == before
    with opened(disk) as store:
        assert all(blob.is_right(store) for blob in many)


def test_after_a_restart_of_the_machine_all_is_found_and_verified_when_read(place: Path) -> None:
    many = filled(place)
    restart_machine(place)
    flip_payload_byte(place, many[3])
    with opened(place) as store:
        assert states(store) == {SUSPECT}
        assert [blob.is_right(store) for blob in many] == [True] * 3 + [False] + [True] * 26
        assert store.counters.process().checksum_failures == 1
        assert not store.contains(many[3].key, many[3].digest)
        assert store.upkeep.verify() == []
        assert states(store) == {SEALED}
        assert store.upkeep.count() == 29


def test_the_restart_is_noticed_once(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(disk)
    restart_machine(disk)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with opened(disk):
                pass
    assert len([record for record in caplog.records if "restarted" in record.message]) == 1


def test_verify_drops_what_is_damaged(place: Path) -> None:
    many = filled(place)
    flip_payload_byte(place, many[5])
    flip_payload_byte(place, many[20])
    with opened(place) as store:
        assert sorted(record.ref.name for record in store.upkeep.verify()) == ["o00005", "o00020"]
        assert store.upkeep.count() == 28
        assert store.counters.process().checksum_failures == 2
        assert all(blob.is_right(store) == (number not in (5, 20)) for number, blob in enumerate(many))
        before = disk_usage(place)
        store.upkeep.sweep(lambda records: [False] * len(records))
        assert disk_usage(place) < before - 80_000


def test_verifying_on_each_read_finds_it_without_a_restart(disk: Path) -> None:
    many = filled(disk)
    flip_payload_byte(disk, many[5])
    with opened(disk, verify="read") as store:
        assert [number for number, blob in enumerate(many) if not blob.is_right(store)] == [5]


@pytest.mark.parametrize("lost", [1, 4096, 200_000])
@pytest.mark.parametrize("how", ["cut", "zeroed"])
def test_a_torn_tail_never_gives_wrong_bytes(disk: Path, lost: int, how: str) -> None:
    many = filled(disk)
    file = segment_files(disk)[-1]
    size = file.stat().st_size
    os.truncate(file, max(0, size - lost))
    if how == "zeroed":
        os.truncate(file, size)
    shutil.rmtree(disk / "index")
    with opened(disk) as store:
        right = [blob.is_right(store) for blob in many]
        assert all(right[: (30 * 50_000 - max(lost, 50_000) - 300_000) // 50_000])
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many)
        assert store.upkeep.verify() == []


@pytest.mark.parametrize("offset", [3, 8, 70, 128])
def test_a_damaged_header_hides_records_but_never_gives_wrong_bytes(disk: Path, offset: int) -> None:
    many = filled(disk)
    with segment_files(disk)[0].open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))
    with opened(disk) as store:
        store.upkeep.sweep(lambda records: [record.ref.name > "o00025" for record in records])
        for blob in many:
            blob.is_right(store)
        store.upkeep.repair()
        for blob in many:
            blob.is_right(store)
        store.upkeep.sweep(lambda records: [record.ref.name < "o00003" for record in records])
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many)


def test_files_that_are_not_ours_are_left_alone(disk: Path) -> None:
    filled(disk)
    theirs = [disk / "notes.txt", disk / "segments" / "holiday.seg", disk / "segments" / "deadbeef.seg"]
    for path in theirs:
        path.write_text("mine")
    shutil.rmtree(disk / "index")
    with opened(disk) as store:
        store.upkeep.repair()
        store.upkeep.clear()
    assert [path.read_text() for path in theirs] == ["mine"] * 3


def test_a_segment_deleted_by_hand_is_a_miss(place: Path) -> None:
    many = filled(place)
    for file in segment_files(place):
        file.unlink()
    with opened(place) as store:
        assert not any(blob.is_right(store) for blob in many)
        assert store.upkeep.count() == 0
        assert all(blob.offer(store) for blob in many)


def test_a_segment_cut_off_by_hand_is_a_miss(place: Path) -> None:
    many = filled(place)
    for file in segment_files(place):
        os.truncate(file, 4096)
    with opened(place) as store:
        assert not any(blob.is_right(store) for blob in many)
        assert store.counters.process().checksum_failures == len(many)
        assert all(blob.offer(store) for blob in many)
        assert all(blob.is_right(store) for blob in many)


def test_repair_beside_a_writer_loses_neither_its_segment_nor_its_objects(place: Path) -> None:
    many = blobs(60, size=50_000)
    with opened(place, "50MB") as store, Peer(place) as peer:
        peer.ask("put", many[:15])
        assert peer.ask("reserve", many[15])
        for blob in many[30:40]:
            blob.put(store)
        mine = many[40].filled(store)
        assert store.upkeep.repair() == 25
        assert peer.ask("repair") == 25
        assert states(store) == {OPEN}
        peer.ask("publish", many[15])
        store.publish([mine])
        peer.ask("put", many[16:30])
        for blob in many[41:]:
            blob.put(store)
        assert all(blob.is_right(store) for blob in many)
        assert all(peer.ask("get", many))
        peer.ask("close")
        store.upkeep.sweep(lambda records: [False] * len(records))
        reserved = sum(used for used, _ in store.upkeep.usage().values())
        assert reserved == sum(file.stat().st_blocks * 512 for file in segment_files(place))


def test_a_second_open_of_one_index_does_not_break_the_locks_of_the_first(disk: Path, tmp_path: Path) -> None:
    """By a link, so that the registry takes it for another cache: LMDB refuses, and other processes still see us."""
    (tmp_path / "link").symlink_to(disk)
    with opened(disk, "50MB") as store:
        Blob("a").put(store)
        with pytest.raises(CacheDirectoryError, match="cannot be opened"), opened(tmp_path / "link"):
            pass
        posix_locks = [line for line in Path("/proc/locks").read_text().splitlines() if f" {os.getpid()} " in line]
        inode = str((disk / "index" / "lock.mdb").stat().st_ino)
        assert any(line.split()[5].endswith(f":{inode}") for line in posix_locks)
        assert Blob("a").is_right(store)


@pytest.mark.parametrize("how", ["sealed", "left by a dead writer"])
def test_repair_sees_what_is_written_and_sealed_meanwhile(place: Path, how: str) -> None:
    many = blobs(40, size=20_000)
    with opened(place, "6MB") as store, Peer(place) as peer:
        peer.ask("put", many[:1])
        scanned: list[int] = []

        def go_on(found: int) -> None:
            scanned.append(found)
            if len(scanned) == 1:
                peer.ask("put", many[1:])
                if how == "sealed":
                    peer.ask("close")
                else:
                    peer.kill()
                    assert store._reclaimer.adopt() == 1

        assert store.upkeep.repair(go_on) == 40
        assert scanned == [1]
        assert all(blob.is_right(store) for blob in many)
        on_disk = sum(file.stat().st_blocks * 512 for file in segment_files(place))
        assert sum(used for used, _ in store.upkeep.usage().values()) == on_disk


def test_what_was_evicted_may_come_back_by_repair_but_right(disk: Path) -> None:
    many = blobs(20, size=10_000)
    with opened(disk, "50MB") as store:
        views = [blob.put(store) for blob in many]
        store.upkeep.remove([blob.key for blob in many[:10]])
        del views
        store.upkeep.repair()
        assert all(blob.is_right(store) for blob in many[10:])
        for blob in many[:10]:
            blob.is_right(store)


def test_an_id_is_not_used_again_after_the_index_was_lost(disk: Path) -> None:
    filled(disk)
    before = {file.name for file in segment_files(disk)}
    shutil.rmtree(disk / "index")
    with opened(disk) as store:
        Blob("new").put(store)
        new = {file.name for file in segment_files(disk)} - before
        assert min(new) > max(before)


def test_a_full_index_makes_publishing_fall_back(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiscache.store import store as module

    real = module.open_index
    monkeypatch.setattr(module, "open_index", lambda *args, map_bytes: real(*args, map_bytes=128 << 10))
    with opened(disk, "50MB") as store:
        many = blobs(3000, size=10)
        for blob in many:
            reservation = blob.reserve(store)
            if reservation is not None:
                reservation.fill(blob.data)
                assert bytes(store.publish([reservation])[0]) == blob.data
        right = sum(blob.is_right(store) for blob in many)
        assert 100 < right < 3000
        assert store.counters.process().fallbacks > 0
