"""The format of a manifest file: a prefix, a JSON header, and flat little-endian sections at multiples of 64 bytes.

    prefix    magic, format number, header length, file length, xxh3_64 of the header, xxh3_64 of all sections
    header    {"count", "total_bytes", "etl", "sources": [...], "sections": {name: [offset, length]}, "widths": {...}}
    sections  names, name_ends, sizes, checksums[, checksum_ends], versions[, version_ends], sources, keys, digests

A string column whose values are all of one length has that as its width and no `_ends`. Nothing that is read here is
trusted: every number is held against the file's length before it is used, and nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any

import msgspec
import xxhash

from aiscache.errors import ManifestError
from aiscache.keys import KEY_BYTES

MAGIC = b"AISCMANI"
FORMAT = 1
ALIGNMENT = 64
PREFIX = Struct("<8sIIQQQ")  # magic, format, header length, file length, header hash, sections hash

# Bytes per row of the sections that have a fixed row.
ROW_BYTES = {"name_ends": 8, "sizes": 8, "sources": 4, "keys": KEY_BYTES, "digests": 8}
STRING_COLUMNS = ("names", "checksums", "versions")
_MOST_ROWS = 1 << 40


class Source(msgspec.Struct, frozen=True):
    """One bucket of the rows, and the cluster that it is on."""

    cluster: str
    endpoint: str
    provider: str
    namespace: str
    bucket: str


class Header(msgspec.Struct):
    """What the header says; `sections` are (offset, length) in bytes, `widths` those of equal-length string columns."""

    count: int
    total_bytes: int
    etl: str
    sources: list[Source]
    sections: dict[str, tuple[int, int]]
    widths: dict[str, int]


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(Header)


@dataclass(frozen=True, slots=True)
class Layout:
    """A checked header, with the hash that its sections should have."""

    header: Header
    file_bytes: int
    sections_hash: int


def aligned(offset: int) -> int:
    """Return the next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def encode(header: Header, sections: Iterable[tuple[str, Any]]) -> list[bytes | bytearray | memoryview]:
    """Return the parts of the file in order, padding included; fills in `header.sections`.

    The header's length depends on the offsets in it, so those count from the first section on.
    """
    body: list[bytes | bytearray | memoryview] = []
    offset, hasher = 0, xxhash.xxh3_64()
    for name, data in sections:
        header.sections[name] = (offset, len(data))
        padding = bytes(aligned(offset + len(data)) - offset - len(data))
        for part in (data, padding):
            body.append(part)
            hasher.update(part)
        offset += len(data) + len(padding)
    text = _ENCODER.encode(header)
    start = aligned(PREFIX.size + len(text))
    head_hash = xxhash.xxh3_64_intdigest(text)
    prefix = PREFIX.pack(MAGIC, FORMAT, len(text), start + offset, head_hash, hasher.intdigest())
    return [prefix, text, bytes(start - PREFIX.size - len(text)), *body]


def decode(data: Any, *, name: str) -> Layout:
    """Check prefix and header of a whole file in a buffer; ManifestError says what is wrong with `name`.

    The sections come back with their place in the file. Their content is not looked at.
    """
    if len(data) < PREFIX.size:
        raise ManifestError(f"{name} is no manifest: {len(data)} bytes")
    magic, number, text_bytes, file_bytes, head_hash, sections_hash = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise ManifestError(f"{name} is no manifest: it starts with {magic!r}")
    if number != FORMAT:
        raise ManifestError(f"{name} has manifest format {number}, this version reads {FORMAT}; list the dataset again")
    if file_bytes != len(data) or PREFIX.size + text_bytes > file_bytes:
        raise ManifestError(f"{name} is damaged: {len(data)} bytes instead of {file_bytes}")
    text = bytes(data[PREFIX.size : PREFIX.size + text_bytes])
    if xxhash.xxh3_64_intdigest(text) != head_hash:
        raise ManifestError(f"{name} is damaged: its header is not what was written")
    try:
        header = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{name} is damaged: {error}") from error
    start = aligned(PREFIX.size + text_bytes)
    _check(header, file_bytes - start, name)
    header.sections = {key: (start + offset, length) for key, (offset, length) in header.sections.items()}
    return Layout(header, file_bytes, sections_hash)


def _check(header: Header, available: int, name: str) -> None:
    """Hold every section against the file and the number of rows."""
    if not 0 <= header.count < _MOST_ROWS:
        raise ManifestError(f"{name} is damaged: {header.count} rows")
    for key, (offset, length) in header.sections.items():
        if offset < 0 or length < 0 or offset % ALIGNMENT or offset + length > available:
            raise ManifestError(f"{name} is damaged: section {key} lies outside of the file")
    for key, row_bytes in _expected(header).items():
        length = header.sections.get(key, (0, -1))[1]
        if length != row_bytes * header.count:
            raise ManifestError(f"{name} is damaged: section {key} has {length} bytes for {header.count} rows")


def _expected(header: Header) -> dict[str, int]:
    """Bytes per row of every section that must be there, blobs aside."""
    rows = {key: ROW_BYTES[key] for key in ("sizes", "sources", "keys", "digests")}
    for column in STRING_COLUMNS:
        if column in header.widths:
            rows[column] = header.widths[column]
        else:
            rows[f"{column[:-1]}_ends"] = 8
    for column in STRING_COLUMNS:
        if column not in header.widths and column not in header.sections:
            rows[column] = -1  # never true: the blob must be there
    return rows
