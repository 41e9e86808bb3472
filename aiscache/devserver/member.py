"""The nodes as the test process sees them: processes, and a private line to each."""

from __future__ import annotations

import contextlib
import os
import signal
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
    """One node: its process (`pid`), its port, and the private line to it. `tell` can be called from any thread."""

    def __init__(self, config: Config, line: socket.socket) -> None:
        self.id = config.id
        self.pid = 0
        self.port = 0
        self._lock = threading.Lock()
        line.settimeout(_REPLY_S)
        self._channel = Channel(line)
        self._channel.send(msgspec.to_builtins(config))

    def started(self) -> None:
        """Wait until the node serves, and note its port; raises OSError with its reason where it can't."""
        try:
            reply, _ = self._channel.receive()
        except ClosedError:
            raise OSError(f"dev server node {self.id} did not start") from None
        if "error" in reply:
            raise OSError(reply["error"])
        self.pid, self.port = reply["result"]

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


class Processes:
    """The processes of all nodes. One is started, which forks the others: what they need is imported once."""

    def __init__(self, configs: list[Config]) -> None:
        pairs = [socket.socketpair() for _ in configs]
        lines = [theirs.fileno() for _, theirs in pairs]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([_ROOT, os.environ.get("PYTHONPATH", "")])}
        self._launcher = subprocess.Popen(  # noqa: S603 -- our own module, and numbers
            [sys.executable, "-m", "aiscache.devserver.node", *map(str, lines)],
            stdin=subprocess.DEVNULL,
            pass_fds=lines,
            env=environment,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us: it ends the nodes by ending their owner
        )
        for _, theirs in pairs:
            theirs.close()
        self.members = [Member(config, ours) for config, (ours, _) in zip(configs, pairs, strict=True)]

    def close(self) -> None:
        """End all processes: they end when their lines do; those that don't are killed."""
        for member in self.members:
            member.hang_up()
        try:
            self._launcher.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            for pid in [member.pid for member in self.members if member.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._launcher.wait()
