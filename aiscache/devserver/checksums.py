"""The checksum types a bucket can have (recorded: 172-179)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# recorded: 179 lists them in the refusal of `cesxxhash`
TYPES = ("crc32c", "md5", "sha256", "sha512", "xxhash", "xxhash2", "none")
DEFAULT = "xxhash2"


class Hasher(Protocol):
    """What hashlib, xxhash and google_crc32c objects have in common."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The checksum so far, in hex."""


class _Crc32c:
    """google_crc32c's object with AIStore's spelling: 8 hex digits, big-endian (recorded: 176)."""

    def __init__(self) -> None:
        import google_crc32c

        self._crc = google_crc32c.Checksum()

    def update(self, data: bytes, /) -> None:
        self._crc.update(bytes(data))

    def hexdigest(self) -> str:
        hexed: str = self._crc.digest().hex()
        return hexed


_HASHERS: dict[str, Callable[[], Hasher]] = {
    "xxhash": xxhash.xxh64,  # recorded: 173 and 174 give the same value, the xxh64 with seed 0
    "xxhash2": xxhash.xxh64,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "crc32c": _Crc32c,
}


def checksum(kind: str, parts: Iterable[bytes]) -> str:
    """The checksum of the concatenated parts in hex; empty for the type `none`."""
    if kind == "none":
        return ""
    hasher = _HASHERS[kind]()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()
