"""HTTP/1.1 on one connection: requests in, responses out, in order, with back-pressure.

Knows nothing of AIStore. Guarantees: responses leave in the order of their requests (pipelining is safe); nothing more
is read or answered while the client doesn't take what was written; a response that is not ready at once never holds up
other connections. Whether there is TLS below it decides who makes the server: nothing here touches the socket's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, TypeGuard

import httptools

from aiscache.devserver.heads import head
from aiscache.devserver.messages import Application, Delivery, FileSlice, Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable

BUFFER = 1 << 18  # bytes: up to this much is sent in one go, larger bodies piece by piece
_TICK_S = 0.02  # pause between the pieces of a slow drip


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
        self._reading = False  # a request has begun and isn't complete

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

    def close_if_idle(self) -> None:
        """Close the connection if nothing is under way on it, as a server does after some time."""
        if self._busy is None and not self._queue and not self._reading:
            self._closing = True
            self._transport.close()

    # The parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reading = True
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
        self._reading = False
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
        lead = head(request, response)
        if request.method == "HEAD" or not body:
            self._transport.write(lead)
        else:
            self._transport.writelines((lead, body))
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
            self._transport.write(head(request, response))
        elif response.delivery is not None and response.delivery.alters_body:
            await self._mishandle(request, response, response.delivery)
        elif isinstance(response.body, bytes):
            self._transport.write(head(request, response))
            await self._write(response, response.body)
        elif isinstance(response.body, FileSlice):
            self._transport.write(head(request, response))
            await self._send_file(response, response.body)
        else:
            self._transport.write(head(request, response))
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
            await self._drained()
            sent = await self._loop.sendfile(self._transport, file, part.start, part.length)
        if sent < part.length:
            raise ConnectionAbortedError(f"{part.path} shrank while it was sent")
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
        cuts = (delivery.truncate_at, delivery.reset_at, delivery.stall_at)
        cut = next((size for size in cuts if size is not None), None)
        self._transport.write(head(request, response))
        if framed:
            self._transport.write(b"%x\r\n" % announced)
        await self._drip(response, body if cut is None else body[:cut], delivery.bytes_per_s)
        if delivery.stall_at is not None:
            await asyncio.Event().wait()  # until the client gives up, which cancels us
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

    def _finish(self, request: Request, response: Response) -> None:
        if response.close or not request.keep_alive:
            self._closing = True
            self._transport.close()


def _is_small(body: object) -> TypeGuard[bytes]:
    return isinstance(body, bytes) and len(body) <= BUFFER


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
