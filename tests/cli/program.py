"""The command line as a user starts it: a process of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "aiscache")
TIMEOUT_S = 60


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without our own settings, and with `changes`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AISCACHE_")}
    return {**inherited, **changes}


def run(*arguments: str | Path, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its stdin is not a terminal."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(**env),
    )


def run_in_terminal(*arguments: str | Path, answer: str = "", columns: int = 100, **env: str) -> tuple[int, str]:
    """Run a command in a terminal where `answer` is typed; return its exit code, and what was shown."""
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30 if columns else 0, columns, 0, 0))
    try:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**env)
        )
    finally:
        os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the last one who had it open has ended
            os.close(ours)
            return process.wait(timeout=TIMEOUT_S), shown.decode()


class Running:
    """A command that runs, in a session (and so a process group) of its own, as if in a terminal of its own."""

    def __init__(self, *arguments: str | Path, **env: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment(**env),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_until(self, text: str) -> str:
        """Read lines up to one that has `text` in it."""
        lines = []
        for line in self.process.stdout or ():
            lines.append(line)
            if text in line:
                return "".join(lines)
        raise AssertionError(f"it ended without {text!r}: {''.join(lines)}{self.process.stderr.read()}")  # type: ignore[union-attr]

    def interrupt(self, *, group: bool) -> tuple[int, str]:
        """Send SIGINT, to all its processes as Ctrl-C in a terminal does or to the first alone.

        Returns the exit code and what came on stderr; both ends of that pipe are closed then, so no child is left.
        """
        (os.killpg if group else os.kill)(self.pid, signal.SIGINT)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors

    def left_behind(self) -> list[int]:
        """Return the processes of its session that still live; one that was killed may take a moment to end."""
        deadline = time.monotonic() + 5
        while True:
            left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.01)

    def _has(self, pid: int) -> bool:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return int(fields[3]) == self.pid and fields[0] != "Z"

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()
