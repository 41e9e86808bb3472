"""Another process, driven over a socket: `Remote` is the near end, `answer_calls` the far one.

What the far end can do are the methods of an object there. It can be told to kill itself at a step inside the package.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

from tests import steps
from tests.forks import ForkServer


class PeerDiedError(Exception):
    pass


class Remote:
    """The near end. `ask` waits for the answer; `tell` and `answer` are its halves."""

    alive: ClassVar[set[Remote]] = set()

    def __init__(self, module: str, *arguments: Any) -> None:
        assert ForkServer.running is not None, "needs the fixture fork_server"
        self._server = ForkServer.running
        self.pid, self._socket = self._server.start(module)
        self._answers = self._socket.makefile("rb")
        self._exit_code: int | None = None
        self.alive.add(self)
        self.ask("start", *arguments)

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.tell(verb, *arguments)
        return self.answer()

    def tell(self, verb: str, *arguments: Any) -> None:
        try:
            self._socket.sendall(pickle.dumps((verb, arguments)))
        except (BrokenPipeError, ConnectionResetError):
            raise PeerDiedError from None

    def answer(self) -> Any:
        try:
            error, value = pickle.load(self._answers)
        except (EOFError, ConnectionResetError):
            raise PeerDiedError from None
        if error is not None:
            raise AssertionError(f"in the other process:\n{error}")
        return value

    def kill(self) -> None:
        if self._exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Let it end, and return its exit code, negative if a signal ended it."""
        self.alive.discard(self)
        self._answers.close()
        self._socket.close()
        if self._exit_code is None:
            self._exit_code = self._server.wait(self.pid)
        return self._exit_code

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


def answer_calls(pipe: socket.socket, start: Callable[..., Any]) -> None:
    """Make an object by `start` when told to, then call its methods, until the near end closes its side."""
    far: Any = None
    with pipe.makefile("rb") as calls:
        while True:
            try:
                verb, arguments = pickle.load(calls)
            except (EOFError, ConnectionResetError):
                return
            error = value = None
            try:
                if verb == "start":
                    far = start(*arguments)
                elif verb in ("die_at", "trace"):
                    value = getattr(steps, verb)(*arguments)
                else:
                    value = getattr(far, verb)(*arguments)
            except BaseException:
                error = traceback.format_exc()
            try:
                pipe.sendall(pickle.dumps((error, value)))
            except (BrokenPipeError, ConnectionResetError):
                return
