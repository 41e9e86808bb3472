"""A notebook's kernel, as far as it matters: runs cells, and goes on with the next when one was interrupted.

As IPython does, it keeps the last error, and with it the frames and all that they hold.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]


class Notebook:
    """A kernel in a process group of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore:This DataLoader will create", "-m", "tests.notebook"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self, cell: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(cell) + "\n")
        self.process.stdin.flush()

    def next(self) -> Any:
        """Return the next thing that a cell told (`tell(value)`), or how it ended: ["done"] or ["interrupted"]."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the kernel ended: {self.process.communicate()[1]}"
        return json.loads(line)

    def run(self, cell: str) -> list[Any]:
        """Run a cell to its end; return what it told."""
        self.begin(cell)
        told = []
        while (answer := self.next()) != ["done"]:
            assert answer != ["interrupted"]
            told.append(answer)
        return told

    def interrupt(self) -> float:
        """Press the stop button: SIGINT to the kernel and all its children; return the seconds until the cell ended."""
        began = time.monotonic()
        os.killpg(self.pid, signal.SIGINT)
        while (answer := self.next()) != ["interrupted"]:
            assert answer != ["done"]
        return time.monotonic() - began

    def close(self) -> tuple[int, str]:
        """End the kernel; return its status and what came on stderr."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.communicate()


def tell(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    from tests.leaks import Holdings, leaked_since

    before: list[Holdings] = []
    namespace: dict[str, Any] = {
        "tell": tell,
        "random": random,
        "threading": threading,
        "time": time,
        "sys": sys,
        "mark": lambda: before.append(Holdings.now()),
        "leaked": lambda: {kind: list(map(str, what)) for kind, what in leaked_since(before[-1]).items()},
    }
    while True:
        try:
            line = sys.stdin.readline()
            if not line:
                return
            exec(json.loads(line), namespace)
            tell(["done"])
        except KeyboardInterrupt as error:
            sys.last_value = error
            tell(["interrupted"])


if __name__ == "__main__":
    main()
