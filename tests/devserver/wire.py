"""Raw requests over sockets of their own, redirects not followed unless asked."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse
from urllib.parse import urlsplit


@dataclass
class Answer:
    """A response as it came, redirects not followed."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def names(self) -> list[str]:
        return sorted(self.headers)


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def send(sock: socket.socket, method: str, target: str, body: bytes = b"", **headers: str) -> None:
    lines = [f"{method} {target} HTTP/1.1", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in ("PUT", "POST", "DELETE", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def receive(sock: socket.socket, method: str = "GET") -> Answer:
    """The next response. Raises http.client's errors for a broken one."""
    with closing(HTTPResponse(sock, method=method)) as response:
        response.begin()
        headers = {name.title(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())


def ask(url: str, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    """One request on a connection of its own."""
    with connect(url) as sock:
        send(sock, method, target, body, **headers)
        return receive(sock, method)


def follow(url: str, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    """One request, and the one that it is redirected to."""
    answer = ask(url, method, target, body, **headers)
    if answer.status not in (301, 307):
        return answer
    where = answer.headers["Location"]
    parts = urlsplit(where)
    path = where[where.index(parts.netloc) + len(parts.netloc) :]
    quoted = re.sub(r"[\x00 \"\\]", lambda match: f"%{ord(match[0]):02X}", path)
    return ask(f"http://{parts.netloc}", method, quoted, body, **headers)
