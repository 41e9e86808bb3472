"""One object in a segment: a header that describes itself, then the payload.

    0        64                      P = 64-byte boundary          64-byte boundary
    | header | identity ... padding  | payload ...         padding | next record

The header is written twice: as PENDING when the space is reserved, so that a walk can step over what a crashed writer
left, and as COMMITTED once the payload is complete and verified. It carries a checksum of itself, so that a walk
never follows a length that was not written by us. The identity is the length-prefixed text that the key is a
hash of: `repair` needs nothing but the segments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any

import xxhash

from aiscache.keys import ObjectRef, unpack_identity
from aiscache.store.names import SEGMENT_HEADER_BYTES

ALIGN = 64
HEADER_BYTES = 64
PENDING, COMMITTED = 1, 2
_FIRST_READ_BYTES = 512  # header and, nearly always, identity
_LONGEST_HEAD_BYTES = 8192  # header and identity, longer than any name that AIS takes

_MAGIC = b"AISR"
_HEADER = Struct("<4sHHIIQQQQ16s")


def align(offset: int) -> int:
    """Round up to the next 64-byte boundary."""
    return (offset + ALIGN - 1) & -ALIGN


@dataclass(frozen=True, slots=True)
class Record:
    """One record as found in a segment; `start` and `payload` are byte offsets in the segment."""

    start: int
    end: int
    payload: int
    length: int
    state: int
    digest: int
    checksum: int
    key: bytes
    identity: bytes

    @property
    def ref(self) -> ObjectRef:
        """The object; size, checksum and version are not kept, only their digest."""
        return unpack_identity(self.identity)


def record_span(identity: bytes, length: int) -> tuple[int, int]:
    """Return the payload's offset from the record's start, and the record's whole size, both in bytes."""
    payload = align(HEADER_BYTES + len(identity))
    return payload, align(payload + length)


def pack_header(*, state: int, key: bytes, digest: int, identity: bytes, length: int, checksum: int) -> bytes:
    """Return header and identity as they stand in the segment; 1.5 us."""
    size = record_span(identity, length)[1]
    fields = (_MAGIC, state, 0, len(identity))
    check = _check(_HEADER.pack(*fields, 0, size, length, digest, checksum, key) + identity)
    return _HEADER.pack(*fields, check, size, length, digest, checksum, key) + identity


def read_record(read: Callable[[int, int], bytes], start: int, *, limit: int) -> Record | None:
    """Return the record that begins at `start` of a segment of `limit` bytes, None if there is none or it is damaged.

    `read(length, offset)` gives bytes of the segment, fewer at its end, as `os.pread` does.
    """
    head = read(_FIRST_READ_BYTES, start)
    if len(head) < HEADER_BYTES:
        return None
    magic, state, zero, identity_length, check, size, length, digest, checksum, key = _HEADER.unpack_from(head)
    identity_end = HEADER_BYTES + identity_length
    if magic != _MAGIC or zero != 0 or state not in (PENDING, COMMITTED) or start + identity_end > limit:
        return None
    if identity_end > len(head):
        head = read(identity_end, start)
    identity = head[HEADER_BYTES:identity_end]
    header = _HEADER.pack(magic, state, 0, identity_length, 0, size, length, digest, checksum, key)
    payload, span = record_span(identity, length)
    if check != _check(header + identity) or span != size or start + span > limit:
        return None
    return Record(start, start + span, start + payload, length, state, digest, checksum, key, identity)


def read_record_of(read: Callable[[int, int], bytes], payload: int, *, limit: int) -> Record | None:
    """Return the record whose payload begins at `payload`, None if there is none; 15 us.

    The header lies before it, at a distance that only the header tells: it is looked for backwards.
    """
    first = max(SEGMENT_HEADER_BYTES, payload - _LONGEST_HEAD_BYTES)
    head = read(payload - first, first)
    at = len(head)
    while (at := head.rfind(_MAGIC, 0, at)) >= 0:
        record = read_record(read, first + at, limit=limit) if (first + at) % ALIGN == 0 else None
        if record is not None and record.payload == payload:
            return record
    return None


def walk(path: Path) -> Iterator[Record]:
    """Yield the records of a segment file from its start to the first place where there is none; 4 us each.

    It reads with `pread`, not through a mapping: a writer may cut off the file's unused end meanwhile, and touching a
    mapped page past the end is a SIGBUS.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        limit = os.fstat(fd).st_size
        offset = SEGMENT_HEADER_BYTES
        while (record := read_record(partial(os.pread, fd), offset, limit=limit)) is not None:
            yield record
            offset = record.end
    finally:
        os.close(fd)


def _check(header: bytes | bytearray) -> int:
    return xxhash.xxh3_64_intdigest(header) & 0xFFFFFFFF


def checksum_of(payload: Any) -> int:
    """Return the checksum of a buffer as entries and records keep it: xxh64, seed 0; 8 us for 100 KiB.

    It is the one that AIS sends by default, so that what was fetched has been hashed already.
    """
    return xxhash.xxh64_intdigest(payload)
