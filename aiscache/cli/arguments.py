"""Arguments that commands share, and types of arguments whose errors say what is accepted."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from aiscache.errors import ConfigError
from aiscache.settings import parse_size

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def add_cache(parser: argparse._ActionsContainer) -> None:
    """Add `--cache`, the choice of the cache."""
    parser.add_argument(
        "--cache", metavar="DIR", help="the cache's directory (default: AISCACHE_DIR, else the unnamed cache)"
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def whole_number(*, least: int) -> Callable[[str], int]:
    """Return an argument type: a whole number that is not below `least`."""

    def convert(text: str) -> int:
        try:
            number = int(text.replace(",", "").replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{text} is too small, must be at least {least}")
        return number

    return convert


def duration_s(text: str) -> float:
    """Convert an argument such as `90s`, `30min`, `12h` or `7d` to seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write a number with a unit: 90s, 30min, 12h, 7d")
    return float(match[1]) * _SECONDS[match[2]]


def size_bytes(text: str) -> int:
    """Convert an argument such as `100KiB` to bytes."""
    try:
        return parse_size(text, name="size")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
