"""What a segment is called, how its file begins, and which bytes of `leases` stand for it."""

from __future__ import annotations

import mmap
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812

_HEADER = Struct("<8sQ")
_MAGIC = b"AISCSEG1"
SEGMENT_HEADER_BYTES = 64
PAGE = mmap.PAGESIZE

# Offsets of byte locks in the file `leases`: a segment's own id for its readers, and one far above for its writer.
WRITER_BYTE = 1 << 60


def segment_header(segment_id: int) -> bytes:
    """Return the first 64 bytes of a segment."""
    return _HEADER.pack(_MAGIC, segment_id).ljust(SEGMENT_HEADER_BYTES, b"\0")


def segment_name(segment_id: int) -> str:
    """Return the file name of a segment."""
    return f"{segment_id:016x}.seg"


def segment_id_of(path: Path) -> int | None:
    """Return the id that a file's name and its first bytes agree on, None if it is no segment of ours."""
    try:
        with path.open("rb") as file:
            magic, segment_id = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, StructError):
        return None
    return segment_id if magic == _MAGIC and path.name == segment_name(segment_id) else None
