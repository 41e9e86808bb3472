"""Requests and responses, and what answers the one with the other. Knows nothing of AIStore, nor of sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable


class Request:
    """One request, its body complete."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query", "raw_query", "remote", "target")

    def __init__(self, remote: str) -> None:
        self.method = ""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = True
        self.remote = remote
        self.path = ""
        self.raw_query = ""
        self.query: dict[str, str] = {}

    def parse_target(self) -> None:
        """Split the request target into path and query, and undo the percent-encoding."""
        path, _, query = self.target.partition(b"?")
        text = path.decode("latin-1")
        self.path = unquote(path.decode("utf-8", "replace")) if b"%" in path or not text.isascii() else text
        self.raw_query = query.decode("latin-1")
        for pair in self.raw_query.split("&") if query else ():
            name, _, value = pair.partition("=")
            self.query[name] = unquote_plus(value) if "%" in value or "+" in value else value

    def header(self, name: bytes) -> str:
        """The value of a header (give its name in lower case); empty without it."""
        return self.headers.get(name, b"").decode("utf-8", "replace")


@dataclass(slots=True)
class FileSlice:
    """A part of a file, to be sent by the kernel."""

    path: str
    start: int
    length: int


@dataclass(slots=True)
class Delivery:
    """How a response is mishandled on its way out. Fields as in `faults.Fault`."""

    delay_s: float = 0.0
    truncate_at: int | None = None
    reset_at: int | None = None
    stall_at: int | None = None
    flip_byte_at: int | None = None
    wrong_length: int | None = None
    bytes_per_s: int | None = None
    alters_body: bool = False


@dataclass(slots=True)
class Response:
    """An answer: a body of known length, or chunks as they come.

    `length` overrides the `Content-Length` of the body at hand (the answer to a HEAD tells the object's size); -1
    leaves the header out. The bytes of an `uncounted` answer are not told to `Application.sent`.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | FileSlice | AsyncIterator[bytes] = b""
    length: int | None = None
    delivery: Delivery | None = None
    close: bool = False
    uncounted: bool = False

    @classmethod
    def ok(cls) -> Response:
        """200 with an empty body."""
        return cls(200)


class Application(Protocol):
    """What answers the requests of a connection."""

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """The response, at once or when it is ready. Must not raise."""

    def wants_body(self, request: Request) -> bool:
        """Whether the request's body is of use; otherwise it is thrown away as it comes."""

    def sent(self, size: int) -> None:
        """Note that `size` bytes of a response's body were sent."""
