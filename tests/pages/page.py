"""A page of the documentation, and how its code is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.py)\n")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int  # of its first line, in the page


@dataclass
class Page:
    """The code of a page. What it says of a user's machine is exchanged for what is there, as `places` tell."""

    path: Path
    places: Mapping[str, str]

    def blocks(self, language: str) -> list[Block]:
        text = self.path.read_text()
        return [
            Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)
            for match in _FENCE.finditer(text)
            if match[1] == language
        ]

    def run(self, names: dict[str, Any]) -> dict[str, Any]:
        """Run its Python in the order of the page, as one module, and return all names.

        A block that begins with the name of a file (`# train.py`) becomes that file, in the working directory.
        """
        names = {"__name__": "page", **names}
        for block in self.blocks("python"):
            code = self._here(block.text)
            file = _FILE.match(code)
            if file:
                Path(file[1]).write_text(code)
            else:
                exec(compile("\n" * (block.line - 1) + code, str(self.path), "exec"), names)
        return names

    def run_shell(self, program: str) -> str:
        """Run the shell blocks that begin with a program, and return what they printed."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        printed = ""
        for block in self.blocks("bash"):
            if block.text.startswith(f"{program} "):
                done = subprocess.run(
                    ["bash", "-ec", self._here(block.text)],
                    env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
                    capture_output=True,
                    text=True,
                    timeout=100,
                )
                assert done.returncode == 0, done.stderr
                printed += done.stdout
        return printed

    def _here(self, code: str) -> str:
        for said, found in self.places.items():
            code = code.replace(said, found)
        return code


PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
