"""An object's properties as response headers, for each kind of request (recorded: 010, 034-040, 156)."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiscache.devserver.buckets import Bucket, Record
    from aiscache.devserver.smap import Node

Headers = list[tuple[str, str]]

MOUNTPATH = "/ais/mp1/1"  # every object's disk, as far as anybody is told


def location(node: Node) -> str:
    """Where an object is, as listings and HEADs tell it."""
    return f"{node.label}:mp[{MOUNTPATH}, vda, hdd]"


def of_put(record: Record, bucket: Bucket) -> Headers:
    """The headers of the answer to a PUT."""
    return [("Ais-Atime", str(record.atime_ns)), *_checksum(record, bucket), *_version(record)]


def of_get(record: Record, bucket: Bucket) -> Headers:
    """The headers of the answer to a GET, but for its length."""
    told = of_put(record, bucket)
    if record.custom:
        told[-1:-1] = _custom(record)
        told += [("Etag", value) for key, value in record.custom.items() if key == "ETag"]
    told.append(("Content-Type", "application/octet-stream"))
    return told


def of_head(record: Record, bucket: Bucket, node: Node, props: list[str] | None) -> Headers:
    """The headers of the answer to a HEAD: the properties asked for, or all of the older kind of HEAD (038)."""
    told: Headers = [("Ais-Present", "true")]
    if props is None:
        told += of_put(record, bucket) + _custom(record)
        told += [("Ais-Bucket-Name", bucket.name), ("Ais-Bucket-Provider", "ais"), ("Ais-Name", record.name)]
        told += [("Ais-Location", location(node)), ("Ais-Mirror-Copies", "1")]
        told.append(("Ais-Mirror-Paths", f"[{MOUNTPATH}]"))
        return told
    for prop in props:
        told += _property(prop, record, bucket, node)
    return told


def _property(prop: str, record: Record, bucket: Bucket, node: Node) -> Headers:
    """The headers of one property; none for `name` and `size`, which a HEAD tells anyway, nor for what is unknown."""
    match prop:
        case "checksum":
            return _checksum(record, bucket)
        case "version":
            return _version(record)
        case "atime":
            return [("Ais-Atime", str(record.atime_ns))]
        case "custom":
            return _custom(record)
        case "location":
            return [("Ais-Location", location(node))]
        case "copies":
            return [("Ais-Mirror-Copies", "1"), ("Ais-Mirror-Paths", MOUNTPATH)]
        case "etag":
            return [("Etag", _etag(record, bucket))]
        case "last-modified":
            return [("Last-Modified", formatdate(record.created_ns / 1e9, usegmt=True))]
        case _:
            return []


def _checksum(record: Record, bucket: Bucket) -> Headers:
    value = record.checksum(bucket.checksum_type)
    return [("Ais-Checksum-Type", bucket.checksum_type), ("Ais-Checksum-Value", value)] if value else []


def _version(record: Record) -> Headers:
    return [("Ais-Version", str(record.version))] if record.version else []


def _custom(record: Record) -> Headers:
    return [("Ais-Custom-Md", f"{key}={value}") for key, value in sorted((record.custom or {}).items())]


def _etag(record: Record, bucket: Bucket) -> str:
    if record.custom and "ETag" in record.custom:
        return f'"{record.custom["ETag"]}"'
    return f'"v{record.version}-{record.checksum(bucket.checksum_type)}-{record.created_ns:x}"'
