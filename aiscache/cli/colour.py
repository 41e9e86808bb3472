"""Colour, on terminals only, and not if NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
from typing import TextIO

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}


def paint(text: str, style: str, stream: TextIO) -> str:
    """Return the text in a style, or as it is if `stream` shows none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
