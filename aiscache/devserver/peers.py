"""Requests between nodes: a small HTTP client on asyncio streams, with connections kept for re-use."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiscache.devserver.smap import Node

_HEAD = b"%b %b HTTP/1.1\r\nHost: devserver\r\nX-Devserver-Intra: 1\r\nContent-Length: %d\r\n\r\n"


class Peers:
    """Connections to the other nodes; over TLS where a context for it is given."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._idle: dict[tuple[str, int], list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = defaultdict(list)

    async def request(self, node: Node, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """The status and the body of the answer; OSError where the node is gone."""
        idle = self._idle[node.host, node.port]
        message = _HEAD % (method.encode(), target.encode(), len(body)) + body
        while idle:
            connection = idle.pop()
            try:
                return await self._exchange(connection, message, node)
            except (OSError, asyncio.IncompleteReadError):
                connection[1].close()  # it was closed while idle; try the next, then a fresh one
        return await self._exchange(await asyncio.open_connection(node.host, node.port, ssl=self._tls), message, node)

    async def _exchange(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], message: bytes, node: Node
    ) -> tuple[int, bytes]:
        reader, writer = connection
        writer.write(message)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _parse(head)
        body = await reader.readexactly(length)
        self._idle[node.host, node.port].append(connection)
        return status, body

    def close(self) -> None:
        """Drop all connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop()[1].close()


def _parse(head: bytes) -> tuple[int, int]:
    lines = head.split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line[:15].lower() == b"content-length:"), 0)
    return int(lines[0][9:12]), length
