"""Aligned columns for people."""

from __future__ import annotations

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return rows as lines: the first `left` columns flush left, the others flush right, two spaces in between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def capacity_bar(used: int, capacity: int, *, width: int = 24) -> str:
    """Return how full something is, `[######..................]`; a little of it shows as soon as anything is in."""
    share = min(used / capacity, 1.0) if capacity > 0 else 0.0
    filled = max(round(share * width), 1) if used > 0 else 0
    return "[" + "#" * filled + "." * (width - filled) + "]"
