"""One node's process: `python -m aiscache.devserver.node`, with the private line as its standard input.

The first message configures the node and is answered with its port; the others are for `Controls`. The process ends
when the line does, or when the process that started it is no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import traceback
from typing import Any

import msgspec

from aiscache.devserver.channel import Channel, ClosedError
from aiscache.devserver.config import Config
from aiscache.devserver.controls import Controls
from aiscache.devserver.listener import Listener
from aiscache.devserver.proxy import ProxyApplication
from aiscache.devserver.smap import Node
from aiscache.devserver.target import TargetApplication


def _application(config: Config) -> ProxyApplication | TargetApplication:
    app = (
        ProxyApplication(config.token)
        if config.number < 0
        else TargetApplication(config.number, config.token, config.directory)
    )
    app.me = Node(config.id, config.host, 0, is_proxy=config.number < 0)
    return app


class NodeProcess:
    """Reads the line and serves, until the line ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until the test process is gone."""
        message, _ = self._channel.receive()
        config = msgspec.convert(message, Config)
        app = _application(config)
        listener = Listener(app, config.host, config.port)
        try:
            await listener.open()
        except OSError as error:
            self._channel.send({"error": f"cannot listen on {config.host}:{config.port}: {error.strerror}"})
            return
        self._channel.send({"result": listener.port})
        self._controls = Controls(app, listener)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.sock, self._read)
        self._watch(config.parent)
        await self._done.wait()
        loop.remove_reader(self._channel.sock)
        listener.close()
        app.peers.close()

    def _watch(self, parent: int) -> None:
        """End with the parent, even if some child that it forked still holds the other end of the line."""
        with contextlib.suppress(OSError, AttributeError):
            asyncio.get_running_loop().add_reader(os.pidfd_open(parent), self._done.set)
        if os.getppid() != parent:
            self._done.set()

    def _read(self) -> None:
        try:
            message, descriptors = self._channel.receive()
        except ClosedError:
            self._done.set()
            return
        except Exception:
            self._done.set()  # out of step with the other side: there is no going on
            raise
        self._task = asyncio.get_running_loop().create_task(self._obey(message, descriptors))

    async def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            reply = {"result": await self._controls.obey(message, descriptors)}
        except Exception:
            reply = {"error": traceback.format_exc()}
        with contextlib.suppress(ClosedError):
            self._channel.send(reply)


def main() -> int:
    """The process: 0 when the line has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test process, which then hangs up
    channel = Channel(socket.socket(fileno=os.dup(0)))
    with contextlib.suppress(ClosedError):
        asyncio.run(_serve(channel))
    return 0


async def _serve(channel: Channel) -> None:
    await NodeProcess(channel).run()


if __name__ == "__main__":
    sys.exit(main())
