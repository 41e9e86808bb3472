"""HTTP/1.1 on one connection: requests in, responses out, in order, with back-pressure.

Knows nothing of AIStore. Guarantees: responses leave in the order of their requests (pipelining is safe); nothing more
is read or answered while the client doesn't take what was written; a response that is not ready at once never holds up
other connections. TLS would be an `ssl` argument where the server is made: nothing here touches the socket's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard
from urllib.parse import unquote, unquote_plus

import httptools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

BUFFER = 1 << 18  # bytes: up to this much is sent in one go, larger bodies piece by piece
_TICK_S = 0.02  # pause between the pieces of a slow drip


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


class _Clock:
    """The `Date` header, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._header = ""

    def header(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._header = f"Date: {formatdate(now, usegmt=True)}\r\n"
        return self._header


_clock = _Clock()
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_STATUS[416] = "HTTP/1.1 416 Requested Range Not Satisfiable\r\n"  # Go's phrase, and Python's before 3.13


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, app: Application, loop: asyncio.AbstractEventLoop, connections: set[Connection]) -> None:
        self._app = app
        self._loop = loop
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._busy: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False

    # The transport's side

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self._remote = f"{host}:{port}"
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(BUFFER)
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection is gone: whatever was being prepared for it is dropped."""
        self._connections.discard(self)
        self._closing = True
        self._queue.clear()
        self._writable.set()
        if self._busy:
            self._busy.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests, in any portions."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._closing:
                self._closing = True
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                self._transport.close()

    def pause_writing(self) -> None:
        """The client doesn't keep up: read and answer nothing more for now."""
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()
        if not self._closing:
            self._transport.resume_reading()
            self._serve()

    def abort(self) -> None:
        """Drop the client without a word (a node that is gone)."""
        self._transport.abort()

    # The parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = Request(self._remote)
        self._chunks: list[bytes] = []
        self._wanted = False
        self._early = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """All headers are here: decide about the body."""
        request = self._request
        request.method = self._parser.get_method().decode()
        request.keep_alive = self._parser.should_keep_alive()
        request.parse_target()
        self._wanted = self._app.wants_body(request)
        if request.headers.get(b"expect", b"").lower() != b"100-continue":
            return
        if self._wanted:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:  # recorded: 217, the proxy answers a PUT without waiting for its body, and closes
            request.keep_alive = False
            self._early = True
            self._enqueue(request)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._wanted:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._closing and not self._early:
            self._request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._enqueue(self._request)

    # Answering

    def _enqueue(self, request: Request) -> None:
        self._queue.append(request)
        self._serve()

    def _serve(self) -> None:
        while self._queue and self._busy is None and self._writable.is_set() and not self._closing:
            request = self._queue.popleft()
            answer = self._app.answer(request)
            if isinstance(answer, Response) and answer.delivery is None and _is_small(answer.body):
                self._send_now(request, answer, answer.body)
                continue
            self._busy = self._loop.create_task(self._send_later(request, answer))

    def _send_now(self, request: Request, response: Response, body: bytes) -> None:
        head = self._head(request, response)
        if request.method == "HEAD" or not body:
            self._transport.write(head)
        else:
            self._transport.writelines((head, body))
            self._sent(response, len(body))
        self._finish(request, response)

    async def _send_later(self, request: Request, answer: Response | Awaitable[Response]) -> None:
        try:
            response = answer if isinstance(answer, Response) else await answer
            if response.delivery is not None and response.delivery.delay_s:
                await asyncio.sleep(response.delivery.delay_s)
            await self._send(request, response)
            self._finish(request, response)
        except (ConnectionError, OSError):
            self._transport.abort()
        finally:
            self._busy = None
        self._serve()

    async def _send(self, request: Request, response: Response) -> None:
        if request.method == "HEAD":
            self._transport.write(self._head(request, response))
        elif response.delivery is not None and response.delivery.alters_body:
            await self._mishandle(request, response, response.delivery)
        elif isinstance(response.body, bytes):
            self._transport.write(self._head(request, response))
            await self._write(response, response.body)
        elif isinstance(response.body, FileSlice):
            self._transport.write(self._head(request, response))
            await self._send_file(response, response.body)
        else:
            self._transport.write(self._head(request, response))
            async for chunk in response.body:
                if not chunk:
                    continue  # an empty chunk would end the body
                await self._write(response, b"%x\r\n%b\r\n" % (len(chunk), chunk), overhead=len(b"%x" % len(chunk)) + 4)
            self._transport.write(b"0\r\n\r\n")

    def _sent(self, response: Response, size: int) -> None:
        if not response.uncounted:
            self._app.sent(size)

    async def _write(self, response: Response, data: bytes, *, overhead: int = 0) -> None:
        """Write all of `data` as fast as the client takes it; `overhead` of its bytes are framing."""
        view = memoryview(data)
        for start in range(0, len(view), BUFFER):
            self._transport.write(view[start : start + BUFFER])
            await self._drained()
        self._sent(response, len(data) - overhead)

    async def _drained(self) -> None:
        await self._writable.wait()
        if self._closing:
            raise ConnectionResetError("the client is gone")

    async def _send_file(self, response: Response, part: FileSlice) -> None:
        with open(part.path, "rb") as file:
            await self._loop.sendfile(self._transport, file, part.start, part.length)
        self._sent(response, part.length)

    async def _mishandle(self, request: Request, response: Response, delivery: Delivery) -> None:
        body, framed = await _whole(response)
        if delivery.flip_byte_at is not None and -len(body) <= delivery.flip_byte_at < len(body):
            flipped = bytearray(body)
            flipped[delivery.flip_byte_at] ^= 0xFF
            body = bytes(flipped)
        announced = delivery.wrong_length if delivery.wrong_length is not None else len(body)
        if not framed:
            response.length = announced
        cut = delivery.truncate_at if delivery.truncate_at is not None else delivery.reset_at
        self._transport.write(self._head(request, response))
        if framed:
            self._transport.write(b"%x\r\n" % announced)
        await self._drip(response, body if cut is None else body[:cut], delivery.bytes_per_s)
        if delivery.reset_at is not None:
            self._reset()
        elif framed and cut is None:
            self._transport.write(b"\r\n0\r\n\r\n")
        response.close = response.close or cut is not None or announced != len(body)

    async def _drip(self, response: Response, body: bytes, bytes_per_s: int | None) -> None:
        if bytes_per_s is None:
            return await self._write(response, body)
        step = max(1, int(bytes_per_s * _TICK_S))
        for start in range(0, len(body), step):
            await self._write(response, body[start : start + step])
            await asyncio.sleep(step / bytes_per_s)
        return None

    def _reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._closing = True
        self._transport.abort()

    def _head(self, request: Request, response: Response) -> bytes:
        lines = [_STATUS.get(response.status) or f"HTTP/1.1 {response.status} Unknown\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in response.headers]
        length = response.length
        if length is None:
            length = _length(response.body)
        if length is None:
            lines.append("Transfer-Encoding: chunked\r\n")
        elif length >= 0:
            lines.append(f"Content-Length: {length}\r\n")
        if response.close or not request.keep_alive:
            lines.append("Connection: close\r\n")
        lines.append(_clock.header())
        lines.append("\r\n")
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _finish(self, request: Request, response: Response) -> None:
        if response.close or not request.keep_alive:
            self._closing = True
            self._transport.close()


def _is_small(body: object) -> TypeGuard[bytes]:
    return isinstance(body, bytes) and len(body) <= BUFFER


def _length(body: bytes | FileSlice | AsyncIterator[bytes]) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    return body.length if isinstance(body, FileSlice) else None


async def _whole(response: Response) -> tuple[bytes, bool]:
    """The whole body in memory, and whether it is framed in chunks."""
    body = response.body
    if isinstance(body, bytes):
        return body, False
    if isinstance(body, FileSlice):
        with open(body.path, "rb") as file:
            file.seek(body.start)
            return file.read(body.length), False
    return b"".join([chunk async for chunk in body]), True
