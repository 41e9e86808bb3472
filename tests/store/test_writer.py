"""Reservations: bytes that come in pieces, too many of them, too few, and a file that cannot be written."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xxhash

from aiscache.store import Reservation, Store, writer
from tests.store.objects import Blob, opened, segment_files


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "cache", "50MB") as store:
        yield store


@contextmanager
def no_longer_files(length: int) -> Iterator[None]:
    """Limit how long this process may make files; the kernel then refuses writes past that, also those of pytest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def reserved(store: Store, blob: Blob) -> Reservation:
    reservation = blob.reserve(store)
    assert reservation is not None
    return reservation


def fill_in_pieces(reservation: Reservation, blob: Blob, *, piece: int) -> None:
    reservation.write([blob.data[at : at + piece] for at in range(0, blob.size, piece)])
    reservation.checksum = checksum(blob)


def checksum(blob: Blob) -> int:
    return xxhash.xxh64_intdigest(blob.data)


@pytest.mark.parametrize("piece", [7, 100, 5_000, 20_000])
def test_an_object_in_pieces(store: Store, piece: int) -> None:
    blob = Blob("a", size=20_000)  # of 7 bytes: more pieces than one call of the kernel takes
    reservation = reserved(store, blob)
    fill_in_pieces(reservation, blob, piece=piece)
    assert bytes(store.publish([reservation])[0]) == blob.data
    assert store.upkeep.verify() == []


def test_beginning_anew(store: Store) -> None:
    blob = Blob("a", size=20_000)
    reservation = reserved(store, blob)
    reservation.write([b"x" * 15_000])
    reservation.restart()
    fill_in_pieces(reservation, blob, piece=6_000)
    store.keep([reservation])
    assert blob.is_right(store)


def test_more_bytes_than_reserved_touch_nothing(store: Store) -> None:
    first, second = Blob("a", size=100), Blob("b", size=100)
    one, two = reserved(store, first), reserved(store, second)
    two.fill(second.data)
    with pytest.raises(ValueError, match="more than the 100 bytes"):
        one.write([b"x" * 99, b"xx"])
    one.fill(first.data)
    store.keep([one, two])
    assert first.is_right(store)
    assert second.is_right(store)


def test_fewer_bytes_than_reserved_are_not_published(store: Store) -> None:
    blob = Blob("a", size=100)
    reservation = reserved(store, blob)
    reservation.write([blob.data[:99]])
    with pytest.raises(ValueError, match="99 of the 100 bytes"):
        store.keep([reservation])
    store.give_up(reservation)
    assert not blob.is_right(store)


def test_a_file_that_cannot_be_written_any_more(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    before, torn, after = Blob("before"), Blob("torn", size=20_000), Blob("after")
    before.put(store)
    reservation = reserved(store, torn)
    reservation.write([torn.data[:5_000]])
    with no_longer_files(reservation.payload + 5_000):
        reservation.write([torn.data[5_000:10_000], torn.data[10_000:]])
        reservation.checksum = checksum(torn)
        view = store.publish([reservation])[0]
    assert bytes(view) == torn.data  # the reader has it all the same
    assert torn.get(store) is None
    assert before.is_right(store)
    assert caplog.text.count("cannot write to the cache in") == 1
    assert after.put(store).tobytes() == after.data
    assert store.upkeep.verify() == []


def test_a_header_that_cannot_be_written(store: Store) -> None:
    blob = Blob("a", size=20_000)
    reservation = reserved(store, blob)
    reservation.fill(blob.data)
    with no_longer_files(1):
        view = store.publish([reservation])[0]
    assert bytes(view) == blob.data
    assert blob.get(store) is None


def test_a_segment_that_is_cut_off_is_not_made_long_again(store: Store, tmp_path: Path) -> None:
    before, after = Blob("before", size=50_000), Blob("after", size=50_000)
    before.put(store)
    store.trim()
    reservation = reserved(store, after)
    (segment,) = segment_files(tmp_path / "cache")
    os.truncate(segment, 10_000)
    reservation.fill(after.data)
    assert bytes(store.publish([reservation])[0]) == after.data
    assert segment.stat().st_size == 10_000
    assert before.get(store) is None  # and no zeros


def test_a_segment_that_grows_while_it_is_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, large = Blob("a", size=5_000), Blob("large", size=900_000)
    reservation = reserved(store, blob)
    look = os.fstat

    def look_while_another_thread_reserves(fd: int) -> os.stat_result:
        told = look(fd)
        monkeypatch.setattr(writer.os, "fstat", look)
        before = reservation.writer.allocated
        large.put(store)
        assert reservation.writer.allocated > before
        return told

    monkeypatch.setattr(writer.os, "fstat", look_while_another_thread_reserves)
    reservation.fill(blob.data)
    assert reservation.failure is None
    store.keep([reservation])
    assert blob.is_right(store)
