"""Buckets: their properties as AIStore tells them, and one target's share of their objects."""

from __future__ import annotations

import copy
import json
import time
from typing import TYPE_CHECKING, Any

from aiscache.devserver import checksums
from aiscache.devserver.bodies import Body, FileBody, parts
from aiscache.devserver.errors import AisError, no_bucket

if TYPE_CHECKING:
    from aiscache.devserver.messages import Request

_PROVIDERS = {"": "ais", "ais": "ais"}
_CLOUDS = {
    "aws": "AWS",
    "s3": "AWS",
    "gcp": "GCP",
    "gs": "GCP",
    "azure": "Azure",
    "az": "Azure",
    "oci": "OCI",
    "oc": "OCI",
}
_SCHEMES = {"aws": "s3", "gcp": "gs", "azure": "az", "oci": "oc"}

# The properties of a new bucket (recorded: 007).
_DEFAULTS: dict[str, Any] = json.loads(
    """{"backend_bck":{"name":"","provider":"","namespace":{"uuid":"","name":""}},
    "write_policy":{"data":"immediate","md":"immediate"},"provider":"ais","Renamed":"",
    "checksum":{"type":"xxhash2","validate_cold_get":false,"validate_warm_get":false,"validate_obj_move":false,
    "enable_read_range":false},"extra":{"aws":{},"gcp":{},"oci":{}},
    "rate_limit":{"backend":{"interval":"1m","max_tokens":1000,"enabled":false,"num_retries":3},
    "frontend":{"interval":"1m","max_tokens":1000,"enabled":false,"burst_size":375}},
    "ec":{"compression":"never","bundle_multiplier":2,"burst_buffer":512,"objsize_limit":262144,"data_slices":2,
    "parity_slices":2,"enabled":false,"disk_only":false},
    "chunks":{"objsize_limit":"0B","max_monolithic_size":"1TiB","chunk_size":"1GiB"},
    "mirror":{"copies":2,"burst_buffer":512,"enabled":false},
    "lru":{"dont_evict_time":"2h0m","capacity_upd_time":"10m","batch_size":32768,"enabled":false},
    "access":"18446744073709551615","features":"0","bid":"0","created":"0",
    "versioning":{"enabled":true,"validate_warm_get":false,"synchronize":false}}"""
)


def uname(bucket: str, namespace: str = "") -> str:
    """The path that identifies a bucket, as in the SDK's `Bucket.get_path()`; an object's adds its name."""
    return f"ais/{namespace or '@#'}/{bucket}/"


def locate(request: Request, bucket: str) -> str:
    """The path of the bucket that a request means, from its query (`provider`, `namespace`).

    Raises:
        AisError: for a provider that does not exist, or is not part of this build (recorded: 126, 127).
    """
    provider = request.query.get("provider", "")
    if provider in _PROVIDERS:
        return uname(bucket, request.query.get("namespace", ""))
    if provider in _CLOUDS:
        told = f"{_SCHEMES.get(provider, provider)}://{bucket}"
        reason = f"{_CLOUDS[provider]} backend is missing in the cluster configuration"
        raise AisError(404, f"failed to lookup bucket {told}, err: {reason}", tcode="ErrFailedTo")
    must = "must be one of [ais, aws (s3://), gcp (gs://), azure (az://), oci (oc://)]"
    raise AisError(400, f'invalid backend provider "{provider}": {must}', tcode="ErrInvalidBackendProvider")


def display(path: str) -> str:
    """A bucket's path as AIStore writes it in messages: `ais://name`, `ais://@uuid#ns/name`."""
    provider, namespace, name = path.rstrip("/").split("/", 2)
    return f"{provider}://{name}" if namespace == "@#" else f"{provider}://{namespace}/{name}"


def properties(settings: dict[str, Any], *, number: int) -> dict[str, Any]:
    """The properties of a new bucket.

    Args:
        settings: what the creator asked for, nested as AIStore nests them.
        number: counts the cluster's buckets.

    Raises:
        AisError: 400 for a checksum type that AIStore does not have (recorded: 179).
    """
    props = copy.deepcopy(_DEFAULTS)
    _merge(props, settings)
    kind = props["checksum"]["type"]
    if kind not in checksums.TYPES:
        raise AisError(400, f'invalid checksum type "{kind}" (expecting [{" ".join(checksums.TYPES)}])')
    props |= {"bid": str((1 << 63) + number), "created": str(time.time_ns())}
    return props


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


class Record:
    """One version of one object on a target."""

    __slots__ = ("_checksum", "atime_ns", "body", "created_ns", "custom", "members", "name", "owned", "version")

    def __init__(self, name: str, body: Body, version: int, now_ns: int, checksum: str | None = None) -> None:
        self.name = name
        self.body = body
        self.version = version
        self.atime_ns = now_ns
        self.created_ns = now_ns
        self.custom: dict[str, str] | None = None
        self.members: dict[str, tuple[int, int]] | None = None
        self.owned = True
        self._checksum = checksum

    def checksum(self, kind: str) -> str:
        """The checksum of the whole object; computed on first use, then remembered."""
        if self._checksum is None:
            self._checksum = checksums.checksum(kind, parts(self.body))
        return self._checksum


class Bucket:
    """One target's share of one bucket."""

    def __init__(self, path: str, props: dict[str, Any], *, read_only: bool = False) -> None:
        self.path = path
        self.name = path.rstrip("/").rsplit("/", 1)[-1]
        self.display = display(path)
        self.props = props
        self.read_only = read_only
        self.checksum_type: str = props["checksum"]["type"]
        self.versioning: bool = props["versioning"]["enabled"]
        self.records: dict[str, Record] = {}
        self.changes = 0  # grows with every change, so that a listing knows whether its sorted names still hold

    def put(self, name: str, body: Body, checksum: str | None = None) -> Record:
        """Keep `body` as the object's new version: up by one, from 1 (recorded: 131-134)."""
        old = self.records.get(name)
        version = (old.version if old else 0) + 1 if self.versioning else 0
        record = Record(name, body, version, time.time_ns(), checksum)
        record.checksum(self.checksum_type)
        self.insert(record)
        return record

    def insert(self, record: Record) -> None:
        """Keep a record as it is."""
        self.records[record.name] = record
        self.changes += 1

    def find(self, name: str) -> Record | None:
        """The object's record; one whose file has changed gets a new version, one whose file is gone is forgotten."""
        record = self.records.get(name)
        if record is not None and self.read_only and isinstance(record.body, FileBody):
            return self._refresh(record, record.body)
        return record

    def _refresh(self, record: Record, body: FileBody) -> Record | None:
        try:
            now = body.stat()
        except OSError:
            self.delete(record.name)
            return None
        if (now.size, now.mtime_ns) == (body.size, body.mtime_ns):
            return record
        fresh = Record(record.name, now, record.version + 1 if record.version else 0, time.time_ns())
        self.insert(fresh)
        return fresh

    def delete(self, name: str) -> bool:
        """Forget an object; whether there was one."""
        found = self.records.pop(name, None) is not None
        self.changes += found
        return found


def existing(buckets: dict[str, Bucket], path: str) -> Bucket:
    """The bucket at `path`; raises the 404 of a missing one."""
    bucket = buckets.get(path)
    if bucket is None:
        raise no_bucket(display(path))
    return bucket
