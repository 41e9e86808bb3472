"""A file system with less space than the capacity says: no SIGBUS, no wrong byte, no exception."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiscache.errors import CacheDirectoryError
from tests.store.objects import Blob, blobs, opened, segment_files
from tests.store.peer import Peer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mount"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with contextlib.suppress(OSError):
            while os.write(fd, b"x" * 4096):
                pass
    finally:
        os.close(fd)


def test_what_fits_is_kept_and_the_rest_refused(small_disk: Path) -> None:
    with opened(small_disk / "cache", "1GB", in_use=lambda records: [True] * len(records)) as store:
        taken = [blob.offer(store) for blob in blobs(200, size=100_000)]
        assert taken.index(False) >= 60
        assert [blob.is_right(store) for blob in blobs(200, size=100_000)] == taken
        assert store.upkeep.verify() == []
        assert store.upkeep.clear().objects == sum(taken)
        assert Blob("again", size=100_000).offer(store)


def test_the_books_stay_right(small_disk: Path) -> None:
    path = small_disk / "cache"
    with opened(path, "1GB", in_use=lambda records: [True] * len(records)) as store:
        for blob in blobs(300, size=50_000):
            blob.offer(store)
        reserved = sum(used for used, _ in store.upkeep.usage().values())
        assert reserved == sum(file.stat().st_blocks * 512 for file in segment_files(path))


def test_several_processes_fill_it(small_disk: Path) -> None:
    path = small_disk / "cache"
    peers = [Peer(path, "1GB") for _ in range(3)]
    batches = [[Blob(f"{number}/{i}", size=70_000) for i in range(60)] for number in range(3)]
    for peer, batch in zip(peers, batches, strict=True):
        peer.tell("use", {blob.ref.name for batch in batches for blob in batch})
        peer.tell("put", batch)
    for peer in peers:
        peer.answer()
    taken = [peer.answer() for peer in peers]
    assert 60 <= sum(map(sum, taken)) <= 120
    for peer, batch, put in zip(peers, batches, taken, strict=True):
        assert peer.ask("get", batch) == put


def test_a_disk_that_somebody_else_filled(small_disk: Path) -> None:
    path = small_disk / "cache"
    with opened(path, "1GB") as store:
        many = blobs(20, size=100_000)
        for blob in many:
            blob.put(store)
        store.upkeep.sweep(lambda records: [False] * len(records))
        fill(small_disk / "theirs")
        assert all(blob.is_right(store) for blob in many)
        for blob in blobs(300, size=10):
            blob.offer(store)
            blob.is_right(store)
    with opened(path) as store:
        assert store.upkeep.verify() == []


def test_no_space_even_for_the_directory(small_disk: Path) -> None:
    fill(small_disk / "theirs")
    with pytest.raises(CacheDirectoryError), opened(small_disk / "cache"):
        pass
