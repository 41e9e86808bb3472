"""What reads files of a cache, each as a function of bytes: it ends, or raises the error that it promises.

`tests/test_fuzz.py` gives it what Hypothesis makes up, `tools/fuzz.py` what atheris finds by coverage. Hashes stand
between a reader and most damage: so each input is read as it is, and again with its hashes made right.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import lmdb
import xxhash

from aiscache.datasets import members
from aiscache.datasets.shard_index import ShardIndex
from aiscache.datasets.tar_members import Member
from aiscache.errors import CorruptError, ManifestError
from aiscache.keys import unpack_identity
from aiscache.manifest import Draft, Manifest, Source
from aiscache.manifest.layout import PREFIX
from aiscache.stats import COUNTERS, Counters
from aiscache.store import record
from aiscache.store.index import ROWS, Entry, Index, SegmentRow
from aiscache.store.names import has_header, segment_header
from aiscache.store.pages import check_pages

SHARDS = 3


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def read_segment(data: bytes) -> None:
    path = scratch() / "x.seg"
    path.write_bytes(data)
    has_header(path, 1)
    end = 64
    for found in record.walk(path):
        assert end == found.start < found.payload <= found.payload + found.length <= found.end <= len(data)
        end = found.end
        with contextlib.suppress(CorruptError):
            assert found.ref.url


def read_forged_segment(data: bytes) -> None:
    """One record, whose header is right by its own checksum."""
    head = bytearray(data[:64].ljust(64, b"\0"))
    head[:8] = struct.pack("<4sHH", b"AISR", 1 + data[5] % 2 if len(data) > 5 else 1, 0)
    head[8:12] = struct.pack("<I", min(int.from_bytes(head[8:12], "little"), len(data)))
    identity = data[64 : 64 + int.from_bytes(head[8:12], "little")]
    head[12:16] = bytes(4)
    head[12:16] = struct.pack("<I", record._check(bytes(head) + identity))
    read_segment(segment_header(1) + bytes(head) + data[64:])


def read_identity(data: bytes) -> None:
    with contextlib.suppress(CorruptError):
        assert unpack_identity(data).url


def read_manifest(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        found = Manifest.of_bytes(data)
        for index in range(min(len(found), 50)):
            with contextlib.suppress(ManifestError):
                assert found.ref(index).name == found.names_of([index])[0]
        assert len(found.keys) == len(found.sizes) == len(found.digests) == len(found)


def read_forged_manifest(data: bytes) -> None:
    whole = bytearray(data.ljust(PREFIX.size + 64, b"\0"))
    magic, number, text_bytes, *_ = PREFIX.unpack_from(whole)
    text_bytes = min(text_bytes, len(whole) - PREFIX.size)
    start = -(-(PREFIX.size + text_bytes) // 64) * 64
    text = xxhash.xxh3_64_intdigest(whole[PREFIX.size : PREFIX.size + text_bytes])
    PREFIX.pack_into(whole, 0, magic, number, text_bytes, len(whole), text, xxhash.xxh3_64_intdigest(whole[start:]))
    read_manifest(bytes(whole))


def read_members(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        table = members._checked_table(memoryview(data), rows=SHARDS, path="x")
        for offset, length, *_ in table.tolist():
            read_shard_index(data[offset : offset + length])


def read_forged_members(data: bytes) -> None:
    whole = bytearray(data.ljust(32 + 32 * SHARDS, b"\0"))
    table = xxhash.xxh3_64_intdigest(whole[32 : 32 + 32 * SHARDS])
    whole[:32] = struct.pack("<8sQQQ", b"AISCMEMB", 1, SHARDS, table)
    read_members(bytes(whole))


def read_shard_index(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        found = ShardIndex(memoryview(data))
        found.sizes()
        for sample in range(min(len(found), 50)):
            with contextlib.suppress(ManifestError):
                assert found.key(sample) is not None
                for _, offset, size in found.members(sample):
                    assert offset + size <= found.end


def read_counters(data: bytes) -> None:
    path = scratch() / "stats"
    path.write_bytes(data)
    counters = Counters(str(path))
    for name in COUNTERS:
        counters.add(name, 1 << 40)
    counters.hit(0, 1, 1)
    assert counters.process().misses == 1 << 40
    assert counters.machine().misses >= 1 << 40
    counters.close()


def read_index(data: bytes) -> None:
    """LMDB may read what is found to be whole; if it cannot, this process is gone."""
    path = scratch() / "index"
    path.mkdir(exist_ok=True)
    (path / "data.mdb").write_bytes(data)
    (path / "lock.mdb").unlink(missing_ok=True)
    try:
        check_pages(path / "data.mdb", rows=ROWS)
    except lmdb.CorruptedError:
        return
    index = Index(path, map_bytes=1 << 20)
    try:
        with contextlib.suppress(lmdb.CorruptedError, lmdb.MapFullError):
            index.make_whole()
            index.walk()
            index.check()
            for number in range(200):
                with index.write() as transaction:
                    index.put_entry(transaction, number.to_bytes(16, "big"), Entry(1, 2, 3, 4, 5))
                    index.put_segment(transaction, number, SegmentRow(1, 1, 4096))
            with index.write() as transaction:
                index.drop_all(transaction)
    finally:
        index.close()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "segment": read_segment,
    "forged segment": read_forged_segment,
    "identity": read_identity,
    "manifest": read_manifest,
    "forged manifest": read_forged_manifest,
    "members": read_members,
    "forged members": read_forged_members,
    "shard index": read_shard_index,
    "counters": read_counters,
    "index": read_index,
}


def _segment() -> bytes:
    parts = [segment_header(1)]
    for number in range(3):
        identity = b"".join(struct.pack("<I", len(part)) + part for part in (b"c", b"ais", b"", b"b", b"", b"name"))
        head = record.pack_header(
            state=2, key=bytes(16), digest=number, identity=identity, length=10 * number, checksum=number
        )
        payload, size = record.record_span(identity, 10 * number)
        parts.append(head.ljust(payload, b"\0").ljust(size, b"x"))
    return b"".join(parts)


def _manifest() -> bytes:
    made = Draft()
    made.begin(Source("u", "http://h", "ais", "", "b"))
    made.extend(["one", "three"], sizes=[1, 2], checksums=["00", ""], versions=["1", "1"])
    return b"".join(made.parts())


def _shard_index() -> bytes:
    return bytes(ShardIndex.of(Member(f"s{n}.{kind}", 512 * n, 100) for n in range(3) for kind in "ab").block)


def _members() -> bytes:
    block, start = _shard_index(), 32 + 32 * SHARDS
    rows = [(start, len(block), 3, xxhash.xxh3_64_intdigest(block)), (0, 0, 0, 0), (start, 0, 0, 0)]
    table = b"".join(struct.pack("<4Q", *row) for row in rows)
    return struct.pack("<8sQQQ", b"AISCMEMB", 1, SHARDS, xxhash.xxh3_64_intdigest(table)) + table + block


def _index() -> bytes:
    path = scratch() / "seed"
    path.mkdir(exist_ok=True)
    index = Index(path, map_bytes=1 << 20)
    for turn in range(4):
        with index.write() as transaction:
            for number in range(100):
                index.put_entry(transaction, xxhash.xxh3_128_digest(b"%d" % number), Entry(turn, 2, 3, 4, 5))
            index.put_segment(transaction, turn, SegmentRow(1, 2, 4096))
    index.close()
    return (path / "data.mdb").read_bytes()


@cache
def seed(name: str) -> bytes:
    """Return a good input for a target."""
    if name == "index":
        return _index()
    if name == "counters":
        return os.urandom(600)
    return {
        "segment": _segment,
        "identity": lambda: _segment()[128:170],
        "manifest": _manifest,
        "members": _members,
    }.get(name.removeprefix("forged "), _shard_index)()
