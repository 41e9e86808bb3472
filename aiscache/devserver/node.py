"""The nodes' processes: `python -m aiscache.devserver.node LINE...` forks one for each private line (a descriptor).

A line's first message configures the node and is answered with its process id and port; the others are for `Controls`.
A node ends when its line does, or when the test process is no more; the process that forked it ends with the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

import msgspec

from aiscache.devserver.channel import Channel, ClosedError
from aiscache.devserver.config import Config
from aiscache.devserver.controls import Controls
from aiscache.devserver.listener import Listener
from aiscache.devserver.peers import Peers
from aiscache.devserver.proxy import ProxyApplication
from aiscache.devserver.smap import Node
from aiscache.devserver.target import TargetApplication


def _application(config: Config) -> ProxyApplication | TargetApplication:
    peers = Peers(config.tls.for_nodes() if config.tls else None)
    app = (
        ProxyApplication(config.token, peers)
        if config.number < 0
        else TargetApplication(config.number, config.token, peers, config.directory)
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
        try:
            app = _application(config)
            tls = config.tls.for_clients() if config.tls else None
        except OSError as error:
            self._channel.send({"error": f"cannot use {config.tls}: {error}"})
            return
        listener = Listener(app, config.host, config.port, tls=tls)
        try:
            await listener.open()
        except OSError as error:
            self._channel.send({"error": f"cannot listen on {config.host}:{config.port}: {error.strerror}"})
            return
        self._channel.send({"result": [os.getpid(), listener.port]})
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


def main(lines: list[int]) -> int:
    """Fork a node for each line and wait for all; 0 when they have ended in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test process, which then hangs up
    for line in lines:
        if os.fork() == 0:
            for other in lines:
                if other != line:
                    os.close(other)
            _run(line)
    for line in lines:
        os.close(line)  # so that a node's end is the end of its line
    return max(os.waitstatus_to_exitcode(os.wait()[1]) for _ in lines)


def _run(line: int) -> NoReturn:
    """Be a node. Leaves without the interpreter's clean-up: there is nothing to clean, and it takes time."""
    status = 1
    try:
        asyncio.run(_serve(Channel(socket.socket(fileno=line))))
        status = 0
    except ClosedError:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


async def _serve(channel: Channel) -> None:
    await NodeProcess(channel).run()


if __name__ == "__main__":
    sys.exit(main([int(line) for line in sys.argv[1:]]))
