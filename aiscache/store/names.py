"""What a segment is called, how its file begins, and which bytes of `leases` stand for it."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812

_HEADER = Struct("<8sQQ")
_MAGIC = b"AISCSEG1"
_NAME = re.compile(r"([0-9a-f]{16})\.seg")
SEGMENT_HEADER_BYTES = 64
PAGE = mmap.PAGESIZE

# Offsets of byte locks in the file `leases`: a segment's own id for its readers, and one far above for its writer; who
# repairs or sweeps; and, shared, all who have the cache open.
WRITER_BYTE = 1 << 60
MAINTENANCE_BYTE = (1 << 61) + 1
USERS_BYTE = (1 << 61) + 2

# Where in the header the generation is: how often holes were punched into the segment. A place in a segment that was
# right at some generation is right for as long as the generation is the same.
GENERATION = slice(16, 24)


def segment_header(segment_id: int, generation: int = 0) -> bytes:
    """Return the first 64 bytes of a segment."""
    return _HEADER.pack(_MAGIC, segment_id, generation).ljust(SEGMENT_HEADER_BYTES, b"\0")


def segment_name(segment_id: int) -> str:
    """Return the file name of a segment."""
    return f"{segment_id:016x}.seg"


def segment_id_of(path: Path) -> int | None:
    """Return the id in the name of a segment's file, None if we would not call a file so."""
    match = _NAME.fullmatch(path.name)
    return int(match[1], 16) if match else None


def has_header(path: Path, segment_id: int) -> bool:
    """Tell whether a file begins as the segment of that id does."""
    try:
        with path.open("rb") as file:
            return bool(_HEADER.unpack(file.read(_HEADER.size))[:2] == (_MAGIC, segment_id))
    except (OSError, StructError):
        return False
