"""Processes that are killed once, or again and again: the next one finds right bytes, and the space comes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote import PeerDiedError
from tests.store.objects import blobs, disk_usage, opened, segment_files
from tests.store.peer import Peer


def check(path: Path, *, put_before: int) -> None:
    """Right bytes or none, for all; nothing of what was there before is lost; the books agree with the disk."""
    with opened(path) as store:
        found = [blob.is_right(store) for blob in blobs(40, size=100_000)]
        assert all(found[:put_before])
        assert store.upkeep.verify() == []
        for blob in blobs(40, size=100_000):
            assert blob.offer(store)
        assert all(blob.is_right(store) for blob in blobs(40, size=100_000))
        store.upkeep.sweep(lambda records: [False] * len(records))
        usage = store.upkeep.usage()
        used = usage[min(usage, key=lambda n: store.tiers[n].path != path / "segments")][0]
        assert used == sum(file.stat().st_blocks * 512 for file in segment_files(path))
        assert used < 40 * 106_000
        assert store.upkeep.repair() == 40
        assert all(blob.is_right(store) for blob in blobs(40, size=100_000))
        store.upkeep.clear()
        assert segment_files(path) == []
        assert all(used == 0 for used, _ in store.upkeep.usage().values())
    assert disk_usage(path) < 200_000


def test_killed_again_while_healing(disk: Path) -> None:
    with Peer(disk, "50MB") as peer:
        peer.ask("put", blobs(40, size=100_000))
        peer.ask("die_at", "hole punched", 0)
        with pytest.raises(PeerDiedError):
            peer.ask("sweep", {f"o{number:05}" for number in range(20, 40, 2)}, False)
    with Peer(disk) as peer:
        peer.ask("die_at", "entries forgotten", 0)
        with pytest.raises(PeerDiedError):
            peer.ask("sweep", {f"o{number:05}" for number in range(20, 40, 3)}, False)
    check(disk, put_before=20)


def test_a_killed_writer_leaves_what_it_published_and_no_more(place: Path) -> None:
    many = blobs(40, size=100_000)
    with Peer(place, "50MB") as peer:
        peer.ask("put", many[:10])
        assert all(peer.ask("reserve", blob) for blob in many[10:20])
        peer.kill()
    with opened(place) as store:
        assert [blob.is_right(store) for blob in many] == [True] * 10 + [False] * 30
        assert store.upkeep.sweep(lambda records: [False] * len(records)).objects == 0
        assert disk_usage(place / "segments") < 10 * 101_000 + 30_000
    check(place, put_before=10)


def test_many_kills_at_any_moment_leave_a_good_cache(place: Path) -> None:
    many = blobs(40, size=100_000)
    with Peer(place, "6MB"):  # full now and then: the killed ones sweep too
        for turn in range(6):
            peer = Peer(place)
            peer.tell("put", many[turn:] + many[:turn])
            for blob in many[: turn * 6]:
                peer.tell("put", [blob])
            try:
                for _ in range(turn):
                    peer.answer()
            except PeerDiedError:  # pragma: no cover
                raise AssertionError("it died by itself") from None
            peer.kill()
            with Peer(place) as reader:
                reader.ask("get", many)
            assert disk_usage(place) <= 6_000_000
    with opened(place) as store:
        store.upkeep.sweep(lambda records: [False] * len(records))
        used = sum(used for used, _ in store.upkeep.usage().values())
        assert used == sum(file.stat().st_blocks * 512 for file in segment_files(place))
        assert store.upkeep.verify() == []


def test_exit_without_close_seals(disk: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.store.objects import *
store = registry.acquire(CacheSettings.resolve(sys.argv[1], capacity="50MB"), in_use=keep_all)
for blob in blobs(5, size=100_000): blob.put(store)
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(disk)], cwd=root, check=True)
    (file,) = segment_files(disk)
    assert file.stat().st_size < 5 * 101_000
