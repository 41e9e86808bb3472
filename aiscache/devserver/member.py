"""A node as the test process sees it: a subprocess and the private line to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from aiscache.devserver.channel import Channel, ClosedError
from aiscache.devserver.config import Config

_ROOT = str(Path(__file__).resolve().parents[2])  # the folder that holds the package, wherever that is
_REPLY_S = 300.0  # a node that does not answer for this long is broken
_EXIT_S = 5.0


class Member:
    """One node's process (`pid`) and port. `tell` can be called from any thread."""

    def __init__(self, config: Config) -> None:
        self.id = config.id
        self.port = 0
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        ours.settimeout(_REPLY_S)
        self._channel = Channel(ours)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([_ROOT, os.environ.get("PYTHONPATH", "")])}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aiscache.devserver.node"], stdin=theirs.fileno(), env=environment, cwd="/"
            )
        self.pid: int = self._process.pid
        self._channel.send(msgspec.to_builtins(config))

    def started(self) -> None:
        """Wait until the node serves, and note its port; raises OSError with its reason where it can't."""
        try:
            reply, _ = self._channel.receive()
        except ClosedError:
            raise OSError(f"dev server node {self.id} ended with {self._process.wait(_EXIT_S)}") from None
        if "error" in reply:
            raise OSError(reply["error"])
        self.port = reply["result"]

    def tell(self, op: str, descriptors: tuple[int, ...] = (), **arguments: Any) -> Any:
        """Have the node carry out `Controls.op_<op>` and return its result."""
        with self._lock:
            self._channel.send({"op": op, **arguments}, descriptors)
            return self._reply()

    def begin(self, op: str, **arguments: Any) -> None:
        """Like `tell`, but don't wait: `finish` must follow."""
        self._lock.acquire()
        self._channel.send({"op": op, **arguments})

    def finish(self) -> Any:
        """The result of what `begin` began."""
        try:
            return self._reply()
        finally:
            self._lock.release()

    def _reply(self) -> Any:
        reply, _ = self._channel.receive()
        if "error" in reply:
            raise RuntimeError(f"dev server node {self.id}: {reply['error']}")
        return reply["result"]

    def hang_up(self) -> None:
        """Let the process end."""
        self._channel.close()

    def wait(self) -> None:
        """Wait for the end of the process; kill it if it takes too long."""
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
