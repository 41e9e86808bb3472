"""Reads the captures in `recorded/`: exchanges between the official SDK (or a raw client) and a real AIStore 5.0."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "recorded"
_PART = re.compile(
    rb"===== (REQUEST  >>>|RESPONSE <<<)  conn#\d+  127\.0\.0\.1:(\d+)[^\n]*\n(.*?)(?=\n===== |\Z)", re.DOTALL
)
_BODY = re.compile(rb"   \[text body (\d+) bytes, verbatim:\]\n")


@dataclass
class Message:
    """A request or a response: its first line, headers in order, and body."""

    port: int
    first: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


@dataclass
class Exchange:
    """A request and what the cluster answered. Port 51080 is the proxy's, 51081... the targets'."""

    request: Message
    response: Message

    @property
    def method(self) -> str:
        return self.request.first.split(" ")[0]

    @property
    def target(self) -> str:
        return self.request.first.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.response.first.split(" ")[1])


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(name: str) -> list[Exchange]:
    data = (FOLDER / f"{name}.txt").read_bytes()
    messages = [_message(int(port), text) for _, port, text in _PART.findall(data)]
    return [Exchange(*pair) for pair in zip(messages[::2], messages[1::2], strict=True)]


def _message(port: int, text: bytes) -> Message:
    body = b""
    found = _BODY.search(text)
    if found:
        body = text[found.end() :][: int(found[1])].ljust(int(found[1]), b"\n")  # the file drops trailing newlines
        text = text[: found.start()]
    first, *lines = text.decode().strip().split("\n")
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines if line]
    return Message(port, first, headers, body)
