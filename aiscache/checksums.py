"""The checksums of AIS, by the name in `Ais-Checksum-Type`: streaming hashers with AIS's spelling of the digest.

`xxhash2` (the default of a bucket) and `xxhash` are both xxh64 with seed 0; `none` and names that are not in the table
have no hasher: their bytes are taken as they come. AIS knows no other names (it refuses `cesxxhash` for a bucket).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import xxhash


class Hasher(Protocol):
    """A checksum that grows with the bytes: `update` as they arrive, `hexdigest` in AIS's spelling at the end."""

    def update(self, data: Any, /) -> object:
        """Add bytes (any contiguous buffer)."""
        ...

    def hexdigest(self) -> str:
        """Return the checksum of the bytes so far, in lower case."""
        ...


class _Crc32c:
    """CRC-32C as 8 hex digits."""

    __slots__ = ("_checksum",)

    def __init__(self) -> None:
        import google_crc32c

        self._checksum = google_crc32c.Checksum()

    def update(self, data: Any) -> None:
        # google_crc32c reads `bytes` only, in some of its versions.
        self._checksum.update(data if isinstance(data, bytes) else bytes(data))

    def hexdigest(self) -> str:
        digest: bytes = self._checksum.digest()
        return digest.hex()


def _md5() -> Hasher:
    return hashlib.md5(usedforsecurity=False)


_HASHERS: dict[str, Callable[[], Hasher]] = {
    "xxhash2": xxhash.xxh64,
    "xxhash": xxhash.xxh64,
    "md5": _md5,
    "crc32c": _Crc32c,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}


def new_hasher(kind: str) -> Hasher | None:
    """Return an empty hasher for an AIS checksum type; None for `none`, "" and unknown names."""
    factory = _HASHERS.get(kind)
    return None if factory is None else factory()


def is_known(kind: str) -> bool:
    """Whether `kind` is a name of AIS, one that stands for "no checksum" included."""
    return kind in _HASHERS or kind in ("", "none")


def checksum(kind: str, data: Any) -> str | None:
    """Return the checksum of one buffer, None where the type has none."""
    hasher = new_hasher(kind)
    if hasher is None:
        return None
    hasher.update(data)
    return hasher.hexdigest()
