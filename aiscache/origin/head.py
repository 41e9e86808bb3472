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
    """Read the header lines that libcurl handed over; the last block counts, as `100 Continue` has one too. 4 us."""
    fields: dict[bytes, bytes] = {}
    status = 0
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.lower()] = value
        elif line.startswith(b"HTTP/"):
            status = int(line.split(None, 2)[1])
            fields.clear()
    get = fields.get
    head = Head(status, complete=bool(lines) and lines[-1] in (b"\r\n", b"\n"))
    length = get(b"content-length", b"").strip()
    if length.isdigit():
        head.length = int(length)
    head.checksum_type = get(b"ais-checksum-type", b"").strip().decode("latin-1")
    head.checksum = get(b"ais-checksum-value", b"").strip().decode("latin-1").lower()
    head.version = get(b"ais-version", b"").strip().decode("utf-8", "replace")
    head.chunked = get(b"transfer-encoding", b"").strip().lower() == b"chunked"
    if status != 200:
        head.location = get(b"location", b"").strip()
        head.error = get(b"hdr-error", b"").strip()
        # An HTTP date is possible too; AIS sends none at all, so only the simple form is read.
        seconds = get(b"retry-after", b"").strip()
        head.retry_after_s = float(seconds) if seconds.isdigit() else None
    return head


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
