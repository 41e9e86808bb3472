"""A node's listening socket, and the connections made through it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

from aiscache.devserver.connection import Connection
from aiscache.devserver.messages import Application

if TYPE_CHECKING:
    from asyncio import AbstractServer

_BACKLOG = 1024


class Listener:
    """Listens on one port, which it keeps for life: closed and opened again, it is the same one."""

    def __init__(self, app: Application, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._app = app
        self._tls = tls
        self._host = host
        self.port = port
        self._connections: set[Connection] = set()
        self._server: AbstractServer | None = None

    async def open(self) -> None:
        """Take connections."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self._host, self.port))
        except OSError:
            sock.close()
            raise
        self.port = sock.getsockname()[1]
        self._server = await loop.create_server(
            lambda: Connection(self._app, loop, self._connections), sock=sock, backlog=_BACKLOG, ssl=self._tls
        )

    def close(self) -> None:
        """Refuse connections, and drop those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.abort()

    def close_idle(self) -> None:
        """Close the connections on which nothing is under way; go on listening."""
        for connection in list(self._connections):
            connection.close_if_idle()
