"""The head of a response: status line and headers, as bytes."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiscache.devserver.messages import FileSlice, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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


def head(request: Request, response: Response) -> bytes:
    """The head of the answer, up to and with the empty line."""
    lines = [_STATUS.get(response.status) or f"HTTP/1.1 {response.status} Unknown\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in response.headers]
    length = _length(response.body) if response.length is None else response.length
    if length is None:
        lines.append("Transfer-Encoding: chunked\r\n")
    elif length >= 0:
        lines.append(f"Content-Length: {length}\r\n")
    if response.close or not request.keep_alive:
        lines.append("Connection: close\r\n")
    lines.append(_clock.header())
    lines.append("\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _length(body: bytes | FileSlice | AsyncIterator[bytes]) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    return body.length if isinstance(body, FileSlice) else None
