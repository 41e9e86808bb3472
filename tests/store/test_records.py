"""Reading records from whatever bytes there are: never an exception, never a read outside, never another record."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiscache.store.names import SEGMENT_HEADER_BYTES, segment_header
from aiscache.store.record import (
    COMMITTED,
    PENDING,
    Record,
    align,
    pack_header,
    read_record,
    read_record_of,
    record_span,
    walk,
)
from tests.store.objects import Blob


class Buffer:
    """Bytes that are read as `os.pread` does; what is asked for outside is remembered."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.most_asked = 0

    def read(self, length: int, offset: int) -> bytes:
        assert length >= 0
        assert 0 <= offset <= len(self.data)
        self.most_asked = max(self.most_asked, length)
        return self.data[offset : offset + length]

    def record(self, start: int = 0) -> Record | None:
        return read_record(self.read, start, limit=len(self.data))


def packed(blob: Blob, *, state: int = COMMITTED) -> bytes:
    header = pack_header(
        state=state, key=blob.key, digest=blob.digest, identity=blob.identity, length=blob.size, checksum=7
    )
    payload, size = record_span(blob.identity, blob.size)
    return (header.ljust(payload, b"\0") + blob.data).ljust(size, b"\0")


blobs_drawn = st.builds(Blob, st.text(st.characters(codec="utf-8"), max_size=700), size=st.integers(0, 300))


@given(blobs_drawn, st.sampled_from([PENDING, COMMITTED]))
def test_what_is_packed_is_read(blob: Blob, state: int) -> None:
    data = packed(blob, state=state)
    record = Buffer(data).record()
    assert record is not None
    assert (record.state, record.key, record.digest, record.length) == (state, blob.key, blob.digest, blob.size)
    assert data[record.payload : record.payload + record.length] == blob.data
    assert record.end == len(data) == align(len(data))
    assert record.ref.name == blob.ref.name


@given(st.lists(blobs_drawn, min_size=1, max_size=4))
def test_a_record_is_found_from_where_its_payload_begins(blobs: list[Blob]) -> None:
    data = segment_header(1)
    for blob in blobs:
        start = len(data)
        data += packed(blob)
        read = Buffer(data + packed(Blob("after", size=3))).read
        record = read_record_of(read, start + record_span(blob.identity, blob.size)[0], limit=len(data) + 192)
        assert record is not None
        assert (record.start, record.key, record.length) == (start, blob.key, blob.size)
        if start > SEGMENT_HEADER_BYTES:
            assert read_record_of(read, start + 64, limit=len(data)) is None or record.payload == start + 64


@given(st.binary(max_size=400))
def test_random_bytes_are_no_record(data: bytes) -> None:
    assert Buffer(data).record() is None


@given(blobs_drawn, st.data())
def test_a_flipped_bit_in_the_header_is_noticed(blob: Blob, data: st.DataObject) -> None:
    good = packed(blob)
    bit = data.draw(st.integers(0, (64 + len(blob.identity)) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    assert Buffer(bytes(bad)).record() is None


@given(blobs_drawn, st.data())
def test_a_record_that_is_cut_off_is_none(blob: Blob, data: st.DataObject) -> None:
    good = packed(blob)
    assert Buffer(good[: data.draw(st.integers(0, len(good) - 1))]).record() is None


@given(st.binary(min_size=64, max_size=64))
def test_lengths_that_lie_make_nothing_large(data: bytes) -> None:
    buffer = Buffer(b"AISR\1\0\0\0" + b"\xff" * 4 + data[12:])
    assert buffer.record() is None
    assert buffer.most_asked <= 4096


@settings(max_examples=60)
@given(
    st.lists(blobs_drawn, max_size=6),
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=3),
)
def test_walking_a_damaged_segment_yields_records_as_written_or_ends(
    tmp_path_factory: pytest.TempPathFactory, many: list[Blob], tail: bytes, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(segment_header(1) + b"".join(map(packed, many)) + tail)
    written = {(record.start, record.key, record.digest) for record in walk_bytes(tmp_path_factory, bytes(data))}
    assert len(written) == len(many)
    for at, mask in flips:
        data[at % len(data)] ^= mask
    found = walk_bytes(tmp_path_factory, bytes(data))
    assert {(record.start, record.key, record.digest) for record in found} <= written
    assert all(record.end <= len(data) for record in found)


def walk_bytes(factory: pytest.TempPathFactory, data: bytes) -> list[Record]:
    path: Path = factory.getbasetemp() / "walked.seg"
    path.write_bytes(data)
    return list(walk(path))


@pytest.mark.parametrize("data", [b"", b"\0" * 10, segment_header(1), segment_header(1) + b"\0" * 5000])
def test_segments_without_records(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert list(walk(tmp_path / "x")) == []


def test_the_format_on_disk() -> None:
    assert SEGMENT_HEADER_BYTES == 64
    assert segment_header(0x0102).hex() == "4149534353454731" + "0201000000000000" + "00" * 48
    blob = Blob("name", size=5, version=3)
    header = pack_header(
        state=COMMITTED, key=blob.key, digest=blob.digest, identity=blob.identity, length=5, checksum=7
    )
    assert header.hex() == (
        "414953520200000021000000dedede13c0000000000000000500000000000000"
        "ecc78dbb74409c3207000000000000005192c54737d6433593bd94c9d9a43b13"
        "01000000630300000061697300000000010000006200000000040000006e616d"
        "65"
    )
    assert record_span(blob.identity, 5) == (128, 192)
