"""Opening a cache for a command that works on what is there: none is made, and none is opened that is no cache."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiscache.cli.choice import Choice, choose
from aiscache.cli.look import SAMPLE, Look, look_at

if TYPE_CHECKING:
    from aiscache.cache import Cache


@contextmanager
def opened(cache: str | None) -> Iterator[tuple[Choice, Cache | None]]:
    """Give the cache that the user means, None if it is the unnamed one and nobody uses it.

    Raises CacheDirectoryError if a named directory is not there or is not a cache of this user.
    """
    from aiscache.cache import Cache

    choice, look = looked_at(cache)
    if look is None:
        yield choice, None
        return
    with Cache(choice.path if choice.named else None) as handle:
        yield choice, handle


def looked_at(cache: str | None, *, most: int | None = SAMPLE) -> tuple[Choice, Look | None]:
    """Return the cache that the user means and what is in it, as `look_at` does."""
    choice = choose(cache)
    return choice, look_at(choice, most=most)


def nothing_there(choice: Choice) -> str:
    """Return what there is to say where `opened` gave None."""
    return f"Nobody uses the unnamed cache ({choice.path}), so there is none."


def agreed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; without one, or with `yes`, who calls has decided already."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
