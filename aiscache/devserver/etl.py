"""Built-in transforms that stand in for ETL containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: dict[str, Callable[[bytes], bytes]] = {
    "echo": lambda data: data,
    "upper": bytes.upper,
    "reverse": lambda data: data[::-1],
    "double": lambda data: data + data,
}


def transform(kind: str, data: bytes) -> bytes:
    """`data` transformed; KeyError for a kind that is not in `KINDS`."""
    return KINDS[kind](data)
