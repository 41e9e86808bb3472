"""The members of a tar archive in memory: where each file's bytes lie. No byte of theirs is read or copied.

The standard library's `tarfile` ends quietly at a damaged header and does not miss what was cut off, so its parser of
single headers is used, and the walk is ours: an archive without an end, or with a header that does not check, is an
error. Understood are ustar, GNU (long names, large numbers) and pax (path, size).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiscache.errors import ShardError

BLOCK_BYTES = tarfile.BLOCKSIZE
_MAGIC_AT = slice(257, 262)
_FILE_TYPES = (*tarfile.REGULAR_TYPES,)
_WITHOUT_DATA = {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


class Member(NamedTuple):
    """A regular file in an archive: `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


def tar_members(data: Any, *, shard: str) -> Iterator[Member]:
    """Yield the regular files of the archive in `data` (a buffer of bytes), in its order; 10 us each.

    Links, directories and devices are passed over. ShardError, naming `shard` and the offset, where the archive is
    damaged or cut off, and at a sparse file, whose bytes are not in one piece.
    """
    memory = memoryview(data).cast("B")
    offset, long_name, pax = 0, "", dict[str, str]()
    while (info := _header(memory, offset, shard)) is not None:
        size = int(pax["size"]) if pax.get("size", "").isdecimal() else info.size
        start = offset + BLOCK_BYTES
        end = start if info.type in _WITHOUT_DATA else start + size
        if size < 0 or end > len(memory):
            raise _damaged(shard, offset, f"is cut off: {info.name!r} ends at {end}, the archive at {len(memory)}")
        if info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _text(memory[start:end])
        elif info.type in _PAX_TYPES:
            pax = _pax_records(memory[start:end], shard=shard, offset=offset)
        elif info.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
                raise _damaged(shard, offset, f"has the sparse file {info.name!r}, which cannot be read in place")
            name = pax.get("path") or long_name or info.name
            if info.type in _FILE_TYPES:
                yield Member(name, start, size)
            long_name, pax = "", {}
        offset = -(-end // BLOCK_BYTES) * BLOCK_BYTES


def is_tar(data: Any) -> bool:
    """Tell whether a buffer begins with a tar header, or with the end of an empty archive."""
    memory = memoryview(data).cast("B")
    if bytes(memory[_MAGIC_AT]) == b"ustar":  # at once for most; the walk checks the header
        return True
    try:
        _header(memory, 0, "")
    except ShardError:
        return False
    return True


def _header(memory: memoryview, offset: int, shard: str) -> tarfile.TarInfo | None:
    """Return the header at an offset, None at the end of the archive (a block of zeros)."""
    block = bytes(memory[offset : offset + BLOCK_BYTES])
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if len(block) == BLOCK_BYTES and not any(block):
            return None
        what = "has a damaged header" if len(block) == BLOCK_BYTES else "is cut off before its end"
        raise _damaged(shard, offset, f"{what} ({error})") from None


def _pax_records(memory: memoryview, *, shard: str, offset: int) -> dict[str, str]:
    """Return the records of a pax header: lines of "<length of the line> <key>=<value>"."""
    text, position, records = bytes(memory), 0, {}
    while position < len(text) and text[position]:
        length, space, _ = text[position : position + 20].partition(b" ")
        end = position + int(length) if space and length.isdigit() else 0
        key, equals, value = text[position + len(length) + 1 : max(end - 1, 0)].partition(b"=")
        if not equals or not position < end <= len(text):
            raise _damaged(shard, offset, "has a damaged pax header")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position = end
    return records


def _text(memory: memoryview) -> str:
    return bytes(memory).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _damaged(shard: str, offset: int, what: str) -> ShardError:
    return ShardError(f"shard {shard} {what}, at offset {offset}", shard=shard, offset=offset)
