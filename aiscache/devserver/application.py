"""What the proxy and the targets have in common: tokens, counts, faults, delays, errors.

A node's own part is `route`, which says what kind of request it is, and which object it means, before it is handled.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from aiscache.devserver import counters
from aiscache.devserver.errors import AisError, describe, no_object
from aiscache.devserver.faults import OBJECT_METHODS, Fault, FaultTable
from aiscache.devserver.messages import Delivery, Request, Response
from aiscache.devserver.smap import Placement

if TYPE_CHECKING:
    from aiscache.devserver.smap import Node

INTRA = b"x-devserver-intra"  # header of requests between nodes: neither counted nor struck by faults
Handler = Callable[[], "Response | Awaitable[Response]"]


@dataclass(slots=True)
class Route:
    """A request understood: its kind, the object it means, and what handles it."""

    kind: str
    handler: Handler
    bucket: str = ""
    names: tuple[str, ...] = ("",)
    obey: Callable[[Fault], None] | None = None  # told of the fault before the request is handled


class NodeApplication:
    """The answers of one node.

    Args:
        number: the target's number; -1 for the proxy.
        token: if not empty, requests without it are refused.
    """

    def __init__(self, number: int, token: str) -> None:
        self.number = number
        self.token = token
        self.faults = FaultTable(number)
        self.counts = counters.zero()
        self.delay_s = 0.0
        self.me: Node
        self.placement: Placement

    def route(self, request: Request) -> Route:
        """Understand a request; raises AisError for one that AIStore refuses outright."""
        raise NotImplementedError

    def wants_body(self, request: Request) -> bool:
        """Every body is of use, except of what the proxy redirects."""
        return True

    def sent(self, size: int) -> None:
        """Count bytes of a body."""
        self.counts["BYTES"] += size

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """Count, authorise, strike, handle: the response, at once or later."""
        intra = INTRA in request.headers
        kind = _guess(request)  # until it is understood, or where it isn't
        fault: Fault | None = None
        try:
            if request.path.startswith("/devserver/"):
                return self.own_pages(request)
            route = self.route(request)
            kind = route.kind
            if not intra:
                self._authorise(request)
                fault = self.faults.strike(kind, route.bucket, route.names) if self.faults else None
                if fault is not None:
                    self._fail(fault, route, request)
                if fault is not None and route.obey is not None:
                    route.obey(fault)
            response = route.handler()
        except AisError as error:
            response = self.refuse(request, error)
        except Exception as error:  # a defect of the dev server: say so instead of dropping the connection
            response = self._broken(request, error)
        if intra:
            return _uncounted(response) if isinstance(response, Response) else response
        if isinstance(response, Response):
            return self._deliver(kind, response, fault)
        self._count(kind)
        return self._settle(request, response, fault)

    async def _settle(self, request: Request, response: Awaitable[Response], fault: Fault | None) -> Response:
        try:
            settled = await response
        except AisError as error:
            settled = self.refuse(request, error)
        except Exception as error:
            settled = self._broken(request, error)
        settled.delivery = self._delivery("", fault) or settled.delivery
        return settled

    def _deliver(self, kind: str, response: Response, fault: Fault | None) -> Response:
        redirected = response.uncounted = response.status in (301, 307)  # what a redirect says is no payload
        self._count("REDIRECT" if redirected else kind)
        response.delivery = self._delivery("" if redirected else kind, fault)
        return response

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1

    def _delivery(self, kind: str, fault: Fault | None) -> Delivery | None:
        delay_s = self.delay_s if kind == "GET" else 0.0
        if fault is None:
            return Delivery(delay_s) if delay_s else None
        return Delivery(
            delay_s + fault.delay_s,
            fault.truncate_at,
            fault.reset_at,
            fault.stall_at,
            fault.flip_byte_at,
            fault.wrong_length,
            fault.bytes_per_s,
            fault.alters_body(),
        )

    def _fail(self, fault: Fault, route: Route, request: Request) -> None:
        """Answer with what a fault has instead of the request's own answer, if it has."""
        if fault.redirect_to is not None:
            where = fault.redirect_to.rstrip("/") + request.target.decode("latin-1")
            raise AisError(301 if request.method == "GET" else 307, "fault: moved", headers=(("Location", where),))
        if fault.status == 404 and route.kind in OBJECT_METHODS:
            raise no_object(self.me.label, f"ais://{route.bucket}/{route.names[0]}")
        if fault.status is not None:
            raise AisError(fault.status, f"fault: status {fault.status}", tcode="ErrFault")

    def _authorise(self, request: Request) -> None:
        """Refuse a request without the token.

        A redirected request passes on the strength of the proxy's redirect (`pid`): `requests`, which the SDK uses,
        drops the token when a redirect leads to another port.
        """
        if not self.token or request.header(b"authorization") == f"Bearer {self.token}":
            return
        if self.number >= 0 and request.query.get("pid") == self.placement.smap.proxy.id:
            return
        raise AisError(401, "token required")

    def refuse(self, request: Request, error: AisError) -> Response:
        """The answer that tells an error (recorded: 119-130); a HEAD's in a header, without a length (120)."""
        label = self.me.label
        told = describe(error, method=request.method, path=request.path, remote=request.remote, node=label)
        headers = [("Content-Type", "application/json"), *error.headers]
        if request.method == "HEAD":
            headers += [("Hdr-Error", told), ("X-Content-Type-Options", "nosniff")]
            return Response(error.status, headers, length=-1)
        headers.append(("X-Content-Type-Options", "nosniff"))
        return Response(error.status, headers, told.encode("utf-8", "surrogateescape") + b"\n")

    def _broken(self, request: Request, error: Exception) -> Response:
        traceback.print_exception(error)
        return self.refuse(request, AisError(500, f"dev server defect: {error!r}"))

    def own_pages(self, request: Request) -> Response | Awaitable[Response]:
        """Pages under /devserver/, which AIStore does not have: the counts of this node."""
        if request.path != "/devserver/requests":
            raise AisError(404, f"no page {request.path}: there is only /devserver/requests")
        if request.method == "DELETE":
            self.counts = counters.zero()
        return _uncounted(json_response(self.counts))

    def act_message(self, request: Request) -> tuple[str, Any]:
        """The action and value of a request's JSON body (an `ActMsg`); raises the 400 of a bad one (recorded: 130)."""
        if not request.body:
            return "", None
        try:
            message = msgspec.json.decode(request.body, type=_ActMsg)
        except msgspec.DecodeError as bad:
            told = f"{self.me.label}: failed to unmarshal [*apc.ActMsg] ({request.method}), err: {bad}"
            raise AisError(400, told) from None
        return message.action, message.value


class _ActMsg(msgspec.Struct):
    action: str = ""
    name: str = ""
    value: Any = None


def _uncounted(response: Response) -> Response:
    response.uncounted = True
    return response


def _guess(request: Request) -> str:
    """The kind of a request by its path and method alone."""
    path = request.path
    if path.startswith("/v1/objects/"):
        return request.method if request.method in OBJECT_METHODS else "OTHER"
    if path.startswith("/v1/buckets"):
        return "LIST" if request.method == "GET" else "BUCKET"
    return "BATCH" if path.startswith("/v1/ml/moss") else "OTHER"


def json_response(told: Any, *, status: int = 200) -> Response:
    """A JSON answer."""
    body = told if isinstance(told, bytes) else json.dumps(told, separators=(",", ":")).encode()
    return Response(status, [("Content-Type", "application/json; charset=utf-8")], body)
