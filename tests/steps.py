"""The primitive steps inside the package at which a process can be told to kill itself.

A step is a function; it is wrapped in the process that is to die, and nowhere else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from aiscache.store import index, reclaim, segment, space, writer
from aiscache.store import store as store_module


def arm(step: str, after: int) -> None:
    """Let this process die when it comes to a step for the `after`-th time, counted from 0."""
    wrap, owner, name = STEPS[step]
    wrap(owner, name, after)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, count: int) -> None:
    _wrap(owner, name, count, die_first=True)


def _after(owner: Any, name: str, count: int) -> None:
    _wrap(owner, name, count, die_first=False)


def _wrap(owner: Any, name: str, count: int, *, die_first: bool) -> None:
    inner: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if die_first and calls > count:
            _die()
        result = inner(*args, **kwargs)
        if calls > count:
            _die()
        return result

    setattr(owner, name, wrapper)


STEPS: dict[str, tuple[Callable[[Any, str, int], None], Any, str]] = {
    "space granted": (_after, space.Space, "_grant"),
    "file created": (_after, space, "SegmentWriter"),
    "file allocated": (_after, writer.os, "posix_fallocate"),
    "file extended": (_after, writer.SegmentWriter, "extend"),
    "header pending": (_after, writer.SegmentWriter, "take"),
    "bytes written": (_before, writer.Reservation, "commit"),
    "header committed": (_after, writer.Reservation, "commit"),
    "entry written, not committed": (_after, index.Index, "put_entry"),
    "entry published": (_after, store_module.Store, "_put_entries"),
    "mapped": (_after, segment.MappedSegments, "view"),
    "file mapped": (_after, segment, "Mapping"),
    "tail cut off": (_after, writer.SegmentWriter, "finish"),
    "sealed": (_after, space.Space, "_seal"),
    "entries forgotten": (_before, reclaim.Reclaimer, "_set_reserved"),
    "filler written": (_before, reclaim, "_FALLOCATE"),
    "hole punched": (_after, reclaim, "_FALLOCATE"),
    "unlinked": (_after, reclaim.Path, "unlink"),
    "swept": (_after, reclaim.Reclaimer, "_set_reserved"),
}
