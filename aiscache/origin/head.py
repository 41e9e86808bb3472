"""The head of a response, reduced to what decides over an object: status, length, checksum, version, next place."""

from __future__ import annotations

from dataclasses import dataclass

from aiscache.keys import ObjectRef


@dataclass(slots=True)
class Head:
    """What the cluster said before the body. `length` is -1 if it was not told; then the body should be `chunked`.

    `complete`: the blank line that ends the head was there. libcurl takes a head that breaks off for a good one.
    """

    status: int = 0
    length: int = -1
    chunked: bool = False
    complete: bool = False
    checksum_type: str = ""
    checksum: str = ""
    version: str = ""
    location: bytes = b""
    retry_after_s: float | None = None
    error: bytes = b""


def parse_head(lines: list[bytes]) -> Head:
    """Read the header lines that libcurl handed over; the last block counts, as `100 Continue` has one too. 3 us."""
    head = Head()
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            reader = _READERS.get(name.lower())
            if reader is not None:
                reader(head, value.strip())
        elif line.startswith(b"HTTP/"):
            head = Head(status=int(line.split(None, 2)[1]))
    head.complete = bool(lines) and lines[-1] in (b"\r\n", b"\n")
    return head


def _length(head: Head, value: bytes) -> None:
    head.length = int(value) if value.isdigit() else -1


def _chunked(head: Head, value: bytes) -> None:
    head.chunked = value.lower() == b"chunked"


def _checksum_type(head: Head, value: bytes) -> None:
    head.checksum_type = value.decode("latin-1")


def _checksum(head: Head, value: bytes) -> None:
    head.checksum = value.decode("latin-1").lower()


def _version(head: Head, value: bytes) -> None:
    head.version = value.decode("utf-8", "replace")


def _location(head: Head, value: bytes) -> None:
    head.location = value


def _retry_after(head: Head, value: bytes) -> None:
    # An HTTP date is possible too; AIS sends none at all, so only the simple form is read.
    head.retry_after_s = float(value) if value.isdigit() else None


def _error(head: Head, value: bytes) -> None:
    head.error = value


_READERS = {
    b"content-length": _length,
    b"transfer-encoding": _chunked,
    b"ais-checksum-type": _checksum_type,
    b"ais-checksum-value": _checksum,
    b"ais-version": _version,
    b"location": _location,
    b"retry-after": _retry_after,
    b"hdr-error": _error,
}


def difference(ref: ObjectRef, head: Head, *, size: int) -> str:
    """Return how a response is not the version that `ref` names, "" if it is, or if that cannot be told.

    The bytes of an ETL have nothing to be compared with. Equal checksums make equal bytes, whatever the version: a PUT
    of the same bytes counts the version up, and a delete starts it anew. Checksums of different length are of different
    types (a listing of a cloud bucket may have the cloud's), so they say nothing.
    """
    if ref.etl:
        return ""
    if ref.size >= 0 <= size != ref.size:
        return f"listed with {ref.size} bytes, now {size}"
    if head.checksum and len(head.checksum) == len(ref.checksum):
        same = head.checksum == ref.checksum.lower()
        versions = f" (versions {ref.version or '?'} and {head.version or '?'})"
        return "" if same else f"listed with checksum {ref.checksum}, now {head.checksum}{versions}"
    if ref.version and head.version and ref.version != head.version:
        return f"listed with version {ref.version}, now {head.version}"
    return ""
