"""A target: holds the objects it owns and answers for them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from aiscache.devserver import archive, checksums, etl, headers, listing, ranges
from aiscache.devserver.application import INTRA, NodeApplication, Route, json_response
from aiscache.devserver.batch import Batch
from aiscache.devserver.bodies import Body, FileBody, MemoryBody
from aiscache.devserver.buckets import Bucket, Record, existing, locate
from aiscache.devserver.connection import BUFFER
from aiscache.devserver.errors import AisError, no_object
from aiscache.devserver.messages import FileSlice, Request, Response
from aiscache.devserver.objectpath import split_object
from aiscache.devserver.peers import Peers
from aiscache.devserver.smap import ClusterMap, Placement

_Answer = Response | Awaitable[Response]


class TargetApplication(NodeApplication):
    """The answers of one target.

    Args:
        number: the target's number.
        token: if not empty, requests without it are refused.
        peers: connections to the other nodes.
        directory: where bodies that are put are kept; in memory without it.
    """

    def __init__(self, number: int, token: str, peers: Peers, directory: str = "") -> None:
        super().__init__(number, token)
        self.buckets: dict[str, Bucket] = {}
        self.etls: dict[str, str] = {}
        self.peers = peers
        self._directory = directory
        self._files = 0
        self._methods: dict[str, Callable[[Request, Bucket, str], _Answer]] = {
            "GET": self._get,
            "HEAD": self._head,
            "PUT": self._put,
            "DELETE": self._delete,
            "PATCH": self._patch,
        }

    # What other nodes and the test process tell this one

    def adopt(self, smap: ClusterMap) -> None:
        """Go by a new cluster map: note which objects this target owns now (only those are listed)."""
        active = [node.id for node in self.placement.targets] if hasattr(self, "placement") else []
        self.placement = Placement(smap)
        self.me = next((node for node in smap.targets if node.id == self.me.id), self.me)
        if [node.id for node in self.placement.targets] != active:
            for bucket in self.buckets.values():
                self._place(bucket)

    def _place(self, bucket: Bucket) -> None:
        names = list(bucket.records)
        owned = self.placement.owned_by(self.me.id, [bucket.path + name for name in names])
        for name, mine in zip(names, owned, strict=True):
            bucket.records[name].owned = mine
        bucket.changes += 1

    def keep(self, data: bytes) -> Body:
        """A body for `data`, in the directory if there is one."""
        if not self._directory:
            return MemoryBody(data)
        self._files += 1
        path = os.path.join(self._directory, f"{self._files:08d}")
        with open(path, "wb") as file:
            file.write(data)
        return FileBody(path, len(data))

    # Requests

    def route(self, request: Request) -> Route:
        """Understand a request (see the base class)."""
        path = request.path
        if path.startswith("/v1/objects/"):
            name, object_name = split_object(request)
            bucket = existing(self.buckets, locate(request, name))
            handler = self._methods.get(request.method, self._unknown)
            return Route(request.method, partial(handler, request, bucket, object_name), name, (object_name,))
        if path.startswith("/v1/ml/moss"):
            batch = Batch.parse(self, request)
            return Route("BATCH", batch.answer, batch.bucket, batch.names, batch.obey)
        if path.startswith("/v1/buckets/") and INTRA in request.headers:
            return Route("LIST", partial(self._bucket, request))
        if path == "/v1/health":
            return Route("OTHER", Response.ok)
        if path == "/v1/daemon":
            return Route("SMAP", lambda: json_response(self.placement.smap.as_json()))
        uri = f"'{request.method} {path}' from {request.remote}"
        raise AisError(400, f"invalid request URI: {uri}")

    def _unknown(self, request: Request, _bucket: Bucket, _name: str) -> Response:
        raise AisError(405, f"invalid method {request.method}")

    def find(self, bucket: Bucket, name: str) -> Record:
        """The object's record; raises the 404 of a missing one."""
        record = bucket.find(name)
        if record is None:
            raise no_object(self.me.label, f"{bucket.display}/{name}")
        return record

    def _get(self, request: Request, bucket: Bucket, name: str) -> Response:
        record = self.find(bucket, name)
        query = request.query
        if "etl_name" in query:
            return self._transformed(query["etl_name"], record)
        if query.get("archpath") or query.get("archregx"):
            return archive.answer(self.me.label, bucket, record, request)
        told = headers.of_get(record, bucket)
        record.atime_ns = time.time_ns()
        spec = request.headers.get(b"range")
        if spec is not None:
            return self._get_range(spec.decode("latin-1"), bucket, record, told)
        return Response(200, told, _slice(record.body, 0, record.body.size))

    def _get_range(self, spec: str, bucket: Bucket, record: Record, told: list[tuple[str, str]]) -> Response:
        size = record.body.size
        start, stop = ranges.parse(spec, size=size, what=f"{bucket.display}/{record.name}")
        if bucket.props["checksum"]["enable_read_range"]:  # recorded: 180, the checksum of the part instead
            value = checksums.checksum(bucket.checksum_type, [record.body.read(start, stop)])
            told = [(header, value if header == "Ais-Checksum-Value" else old) for header, old in told]
        told = [("Accept-Ranges", "bytes"), *told, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")]
        return Response(206, told, _slice(record.body, start, stop))

    def _transformed(self, name: str, record: Record) -> Response:
        if name not in self.etls:
            raise AisError(404, f'{self.me.label}: etl job "{name}" does not exist', tcode="ErrNotFound")
        body = etl.transform(self.etls[name], record.body.read(0, record.body.size))
        return Response(200, [("Content-Type", "application/octet-stream")], body)

    def _head(self, request: Request, bucket: Bucket, name: str) -> Response:
        record = self.find(bucket, name)
        if "presence" in request.query:  # recorded: 039
            return Response(200, length=-1)
        props = request.query.get("props")
        told = headers.of_head(record, bucket, self.me, props.split(",") if props else None)
        return Response(200, told, length=record.body.size)

    def _put(self, request: Request, bucket: Bucket, name: str) -> Response:
        if "pid" not in request.query:  # recorded: 051, 052
            raise AisError(400, f"{self.me.label}: PUT(obj) is expected to be redirected")
        if bucket.read_only:
            raise AisError(403, f"bucket {bucket.display}: access denied (PUT)", tcode="ErrBucketAccessDenied")
        if "\0" in name:  # recorded: 031
            raise AisError(500, f"[fs-path] {bucket.display}/put.{name}: invalid argument", tcode="PathError")
        expected = request.header(b"ais-checksum-value")
        checksum = checksums.checksum(bucket.checksum_type, [request.body])
        if expected and request.header(b"ais-checksum-type") == bucket.checksum_type:
            self._verify(expected, checksum, bucket, name)
            record = bucket.find(name)
            if record is not None and record.checksum(bucket.checksum_type) == checksum:
                return Response.ok()  # recorded: 154, nothing to do
        record = bucket.put(name, self.keep(request.body), checksum)
        return Response(200, headers.of_put(record, bucket))

    def _verify(self, expected: str, checksum: str, bucket: Bucket, name: str) -> None:
        if expected != checksum:  # recorded: 155
            told = f"{bucket.checksum_type}({expected} != {checksum}) (context: {bucket.display}/{name})"
            raise AisError(500, f"BAD DATA CHECKSUM: {told}", tcode="ErrBadCksum")

    def _delete(self, _request: Request, bucket: Bucket, name: str) -> Response:
        if not bucket.delete(name):  # recorded: 125, in other words than a GET
            raise AisError(404, f"{bucket.display}/{name} doesn't exist")
        return Response.ok()

    def _patch(self, request: Request, bucket: Bucket, name: str) -> Response:
        record = self.find(bucket, name)
        _, value = self.act_message(request)
        record.custom = (record.custom or {}) | {str(key): str(entry) for key, entry in (value or {}).items()}
        return Response.ok()

    # Requests of the proxy

    def _bucket(self, request: Request) -> Response:
        path = request.query["path"]
        if request.method == "POST":
            self.add_bucket(path, json.loads(request.body))
            return Response.ok()
        if request.method == "DELETE":
            self.buckets.pop(path, None)
            return Response.ok()
        bucket = existing(self.buckets, path)
        if "summary" in request.query:
            return json_response(listing.summary(bucket, request.query["summary"]))
        wanted = listing.ListRequest.parse(request.body, self.me.label, request.method)
        entries = listing.page(bucket, wanted, self.me)
        return Response(200, [("Content-Type", "application/msgpack")], msgspec.msgpack.encode(entries))

    def add_bucket(self, path: str, props: dict[str, Any], *, read_only: bool = False) -> Bucket:
        """Hold a share of the bucket from now on; the one there is stays."""
        return self.buckets.setdefault(path, Bucket(path, props, read_only=read_only))


def _slice(body: Body, start: int, stop: int) -> bytes | FileSlice:
    if isinstance(body, FileBody) and stop - start > BUFFER:
        return FileSlice(body.path, start, stop - start)
    return body.read(start, stop)
