"""The proxy: knows the cluster map and the buckets, redirects object requests, gathers listings from the targets."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from aiscache.devserver import buckets, listing
from aiscache.devserver.application import INTRA, NodeApplication, Route, json_response
from aiscache.devserver.errors import AisError, no_bucket
from aiscache.devserver.faults import Fault
from aiscache.devserver.messages import Request, Response
from aiscache.devserver.objectpath import split_object
from aiscache.devserver.peers import Peers
from aiscache.devserver.redirects import redirect
from aiscache.devserver.smap import ClusterMap, Node, Placement


class ProxyApplication(NodeApplication):
    """The answers of the proxy."""

    def __init__(self, token: str, peers: Peers) -> None:
        super().__init__(-1, token)
        self.buckets: dict[str, dict[str, Any]] = {}
        self.peers = peers
        self._turn = 0

    def adopt(self, smap: ClusterMap) -> None:
        """Go by a new cluster map."""
        self.placement = Placement(smap)
        self.me = smap.proxy

    def wants_body(self, request: Request) -> bool:
        """The body of an object's PUT is thrown away: it will be sent again to the target."""
        return request.method != "PUT" or not request.path.startswith("/v1/objects/")

    def route(self, request: Request) -> Route:
        """Understand a request (see the base class)."""
        path = request.path
        if path.startswith(("/v1/objects/", "/ais/")):
            return self._object(request)
        if path.startswith("/v1/buckets"):
            return self._bucket(request)
        if path.startswith("/v1/ml/moss"):
            return self._batch(request)
        if path == "/v1/daemon" and request.query.get("what") == "smap":
            return Route("SMAP", lambda: json_response(self.placement.smap.as_json()))
        if path == "/v1/health":
            return Route("OTHER", self._health)
        uri = f"'{request.method} {path}' from {request.remote}"
        raise AisError(400, f"invalid request URI: {uri}")

    def _health(self) -> Response:
        """Recorded: 001."""
        return Response(200, [("Ais-Cluster-Uptime", "5817826406"), ("Ais-Node-Uptime", "7657051058")])

    # Objects

    def _object(self, request: Request) -> Route:
        if request.path.startswith("/ais/"):  # recorded: 193, the "easy" URL
            request.path = "/v1/objects/" + request.path[len("/ais/") :]
            request.raw_query = f"provider=ais&{request.raw_query}".rstrip("&")
        bucket, name = split_object(request)
        path = self._existing(request, bucket)
        if request.method == "POST" and not request.body:  # recorded: 129
            told = f"{self.me.label}: failed to unmarshal [*apc.ActMsg] (POST), err: EOF"
            return Route("POST", partial(_refuse, AisError(400, told)), bucket, (name,))
        handler = partial(self._redirect, request, path + name.replace("\n", " "))
        return Route(request.method, handler, bucket, (name,))

    def _redirect(self, request: Request, uname: str) -> Response:
        return redirect(request, self._owner(uname), proxy=self.me)

    def _owner(self, uname: str) -> Node:
        owner = self.placement.owner(uname)
        if owner is None:
            raise AisError(503, f"{self.me.label}: no targets in the cluster", tcode="ErrNoNodes")
        return owner

    def _existing(self, request: Request, bucket: str) -> str:
        """The path of a bucket that exists."""
        try:
            path = buckets.locate(request, bucket)
        except AisError as error:
            if error.tcode == "ErrFailedTo":  # recorded: 127, the node's name leads
                error.message = f"{self.me.label}: {error.message}"
            raise
        if path not in self.buckets:
            raise no_bucket(buckets.display(path))
        return path

    def _batch(self, request: Request) -> Route:
        parts = [part for part in request.path.split("/")[4:] if part]
        names: tuple[str, ...] = ()
        if parts:
            self._existing(request, parts[0])
        if self.faults:
            names = tuple(item.get("objname", "") for item in json.loads(request.body or b"{}").get("in", []))
        return Route("BATCH", partial(self._redirect_batch, request), parts[0] if parts else "", names)

    def _redirect_batch(self, request: Request) -> Response:
        """To the target that owns most of it where the client asks for colocation (115), else to each in turn."""
        path = f"{request.path.rstrip('/')}/gbt-{secrets.token_urlsafe(6)}/{self.me.id}-{secrets.token_urlsafe(4)}/3"
        active = self.placement.targets
        if not active:
            self._owner("")
        self._turn += 1
        target = active[self._turn % len(active)]
        if request.query.get("coloc", "0") != "0":
            items = json.loads(request.body).get("in", [])
            owners = Counter(self._owner(buckets.uname(i.get("bucket", "")) + i["objname"]).id for i in items)
            target = next(node for node in active if node.id == owners.most_common(1)[0][0])
        return redirect(request, target, proxy=self.me, path=path)

    # Buckets

    def _bucket(self, request: Request) -> Route:
        name = request.path[len("/v1/buckets") :].strip("/").partition("/")[0]
        if not name:
            return Route("BUCKET", self._list_buckets)
        handlers = {"POST": self._create, "HEAD": self._head, "DELETE": self._destroy}
        if request.method in handlers:
            return Route("BUCKET", partial(handlers[request.method], request, name), name)
        if request.method != "GET":
            raise AisError(405, f"invalid method {request.method}")
        if b"summary-bck" in request.body:
            return Route("BUCKET", partial(self._summary, request, name), name)
        page = ListPage(self, request, name)
        return Route("LIST", page.answer, name, obey=page.obey)

    def _list_buckets(self) -> Response:
        return json_response([_bucket_json(path) for path in sorted(self.buckets)])

    async def _create(self, request: Request, name: str) -> Response:
        path = buckets.locate(request, name)
        action, value = self.act_message(request)
        if action != "create-bck":
            raise AisError(501, f"{self.me.label}: action {action!r} is not supported")
        if path in self.buckets:
            raise AisError(409, f'bucket "{buckets.display(path)}" already exists', tcode="ErrBucketAlreadyExists")
        self.buckets[path] = props = buckets.properties(value or {}, number=len(self.buckets) + 1)
        await self.fan_out("POST", path, json.dumps(props).encode())
        return Response.ok()

    async def _destroy(self, request: Request, name: str) -> Response:
        path = self._existing(request, name)
        action, _ = self.act_message(request)
        if action != "destroy-bck":
            raise AisError(501, f"{self.me.label}: action {action!r} is not supported")
        del self.buckets[path]
        await self.fan_out("DELETE", path)
        return Response.ok()

    def _head(self, request: Request, name: str) -> Response | Awaitable[Response]:
        """The properties (007); with a summary in the two steps of 008 where the query asks for one."""
        path = self._existing(request, name)
        told = [("Ais-Bucket-Props", json.dumps(self.buckets[path], separators=(",", ":")))]
        if "bsumm_remote" not in request.query:
            return Response(200, told, length=-1)
        if not request.query.get("uuid"):
            return Response(202, [*told, ("Ais-Xaction-Id", listing.new_uuid())], length=-1)
        return self._head_summary(request, path, told)

    async def _head_summary(self, request: Request, path: str, told: list[tuple[str, str]]) -> Response:
        prefix = "/".join(request.path.split("/")[4:])
        summary = json.dumps(await self._summarise(path, prefix, present=True), separators=(",", ":"))
        told += [("Ais-Bucket-Summ", summary), ("Ais-Xaction-Id", request.query["uuid"])]
        return Response(200, told, length=-1)

    async def _summary(self, request: Request, name: str) -> Response:
        """Recorded: 009, a job's id first, then its result."""
        path = self._existing(request, name)
        _, value = self.act_message(request)
        kind = [("Content-Type", "text/plain; charset=utf-8")]
        if not value.get("uuid"):
            return Response(202, kind, listing.new_uuid().encode())
        summary = await self._summarise(path, value.get("prefix", ""), present=False)
        return Response(200, kind, json.dumps([summary], separators=(",", ":")).encode() + b"\n")

    async def _summarise(self, path: str, prefix: str, *, present: bool) -> dict[str, Any]:
        answers = await self.fan_out("GET", path, query=f"&summary={quote(prefix)}")
        parts = [json.loads(body) for _, status, body in answers if status == 200]
        count, total = sum(part["count"] for part in parts), sum(part["total"] for part in parts)
        smallest = min((part["min"] for part in parts if part["count"]), default=0)
        largest = max((part["max"] for part in parts), default=0)
        sizes = {"obj_min_size": smallest, "obj_avg_size": total // count if count else 0, "obj_max_size": largest}
        space = {"size_on_disk": str(total), "size_all_present_objs": str(total), "size_all_remote_objs": "0"}
        return _bucket_json(path) | {
            "ObjCount": {"obj_count_present": str(count), "obj_count_remote": "0"},
            "ObjSize": sizes,
            "TotalSize": space | {"total_disks_size": "270553174016"},
            "used_pct": 0,
            "is_present": present,
        }

    # Requests to the targets

    async def fan_out(
        self, method: str, path: str, body: bytes = b"", *, query: str = ""
    ) -> list[tuple[Node, int, bytes]]:
        """Ask all targets in the map; the status is 0, the body the reason, for one that is gone."""
        target = f"/v1/buckets/{quote(path)}?path={quote(path, safe='')}{query}"
        return await asyncio.gather(*(self._ask(node, method, target, body) for node in self.placement.smap.targets))

    async def _ask(self, node: Node, method: str, target: str, body: bytes) -> tuple[Node, int, bytes]:
        try:
            return node, *await self.peers.request(node, method, target, body)
        except OSError:
            return node, 0, b"connect: connection refused"

    def own_pages(self, request: Request) -> Response | Awaitable[Response]:
        """The counts of the whole cluster, rather than the proxy's own (DELETE resets them)."""
        mine = super().own_pages(request)
        return mine if INTRA in request.headers else self._all_counts(request)

    async def _all_counts(self, request: Request) -> Response:
        total = Counter(self.counts)
        for node in self.placement.smap.targets:
            _, status, body = await self._ask(node, request.method, "/devserver/requests", b"")
            total.update(json.loads(body) if status == 200 else {})
        answer = json_response(dict(total))
        answer.uncounted = True
        return answer


class ListPage:
    """One page of a listing: a page of every target, merged."""

    def __init__(self, proxy: ProxyApplication, request: Request, name: str) -> None:
        self._proxy = proxy
        self._request = request
        self._name = name
        self._fault: Fault | None = None

    def obey(self, fault: Fault) -> None:
        """Leave out what the fault says."""
        self._fault = fault

    async def answer(self) -> Response:
        """The page, in msgpack where the client accepts it, else in JSON (081).

        Raises:
            AisError: 400 where a target in the map doesn't answer (232). One no longer in the map isn't asked, and its
                objects are silently missing (234).
        """
        proxy, request = self._proxy, self._request
        path = proxy._existing(request, self._name)
        wanted = listing.ListRequest.parse(request.body, proxy.me.label, request.method)
        uuid = wanted.uuid or listing.new_uuid()
        answers = await proxy.fan_out("GET", path, request.body)
        for node, status, body in answers:
            if status != 200:
                raise _failed(proxy.me, node, uuid, body.decode("utf-8", "replace"), request)
        pages = [_decode(body) for _, _, body in answers]
        entries, token = listing.merge(pages, wanted.size)
        if self._fault is not None and self._fault.list_drop:
            dropped = self._fault.drop([entry.n for entry in entries])
            entries = [entry for entry in entries if entry.n not in dropped]
        as_msgpack = b"msgpack" in request.headers.get(b"accept", b"")
        body = listing.encode(entries, token, uuid, as_json=not as_msgpack)
        kind = "application/msgpack" if as_msgpack else "application/json; charset=utf-8"
        return Response(200, [("Content-Type", kind)], body)


_decode = msgspec.msgpack.Decoder(list[listing.Entry]).decode


def _failed(me: Node, node: Node, uuid: str, reason: str, request: Request) -> AisError:
    call = f'Get "{node.url}{request.path}?{request.raw_query}": dial tcp {node.host}:{node.port}: {reason}'
    message = f"{me.label}: failed to call {node.label} list[{uuid}], err: {call}"
    return AisError(400, message, tcode="ErrFailedTo")


def _bucket_json(path: str) -> dict[str, Any]:
    provider, namespace, name = path.rstrip("/").split("/", 2)
    uuid, _, space = namespace[1:].partition("#")
    return {"name": name, "provider": provider, "namespace": {"uuid": uuid, "name": space}}


def _refuse(error: AisError) -> Response:
    raise error
