"""Processes that cost milliseconds: forked from one that has imported what they need and done nothing else.

`python -m tests.forks MODULE ...` is that one. Each child is as fresh as a program just started: it has opened nothing,
and ends as programs do, `atexit` included. It has one socket, to whoever asked for it.
"""

from __future__ import annotations

import array
import importlib
import os
import pickle
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[1]
_IMPORTS = ["tests.store.peer", "tests.actor", "tests.healing"]
_DEADLINE_S = 60.0


class ForkServer:
    """The near end. One per test session; the fixture `fork_server` starts it before tests count their children.

    `imports` are the modules that are imported beforehand, `options` are those of the process that forks the others.
    """

    running: ClassVar[ForkServer | None] = None

    def __init__(self, *imports: str, **options: Any) -> None:
        command = [sys.executable, "-m", "tests.forks", *(imports or _IMPORTS)]
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs, cwd=ROOT, **options)
        self._ask(("ready",))
        ForkServer.running = self

    def start(self, module: str) -> tuple[int, socket.socket]:
        """Run `module.serve(socket)` in a new process; return its id and our end of the socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            return self._ask(("start", module), theirs.fileno()), ours

    def wait(self, pid: int) -> int:
        """Return the exit code of a process that ends within a minute, negative if a signal ended it."""
        pidfd = os.pidfd_open(pid)
        try:
            ended, _, _ = select.select([pidfd], [], [], _DEADLINE_S)
        finally:
            os.close(pidfd)
        assert ended, f"process {pid} hangs"
        return os.waitstatus_to_exitcode(self._ask(("wait", pid)))

    def close(self) -> None:
        ForkServer.running = None
        self._socket.close()
        self._process.wait(_DEADLINE_S)

    def _ask(self, question: tuple[object, ...], *fds: int) -> int:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([pickle.dumps(question)], rights)
        answer = self._socket.recv(100)
        assert answer, "the process that forks others ended"
        return int(answer)


def main() -> None:
    with socket.socket(fileno=0) as asked:
        for name in sys.argv[1:]:
            importlib.import_module(name)
        while True:
            message, fds, _, _ = socket.recv_fds(asked, 1000, 1)
            if not message:
                return
            verb, *arguments = pickle.loads(message)
            answer = 0
            if verb == "wait":
                answer = os.waitpid(*arguments, 0)[1]
            elif verb == "start":
                answer = os.fork()
                if answer == 0:
                    break
                os.close(fds[0])
            asked.send(str(answer).encode())
    with socket.socket(fileno=fds[0]) as own:
        importlib.import_module(*arguments).serve(own)


if __name__ == "__main__":
    main()
