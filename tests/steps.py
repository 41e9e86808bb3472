"""The primitive steps inside the package at which a process can be told to kill itself.

A step is a function, and the moment before it or after it. It is wrapped in the process that is to die, nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aiscache import fill, locks
from aiscache.manifest import store as manifest_store
from aiscache.store import (
    directory,
    index,
    publishing,
    reclaim,
    recovery,
    registry,
    segment,
    space,
    staging,
    tiers,
    upkeep,
    writer,
)
from aiscache.store import store as store_module

_BEFORE, _AFTER = True, False

STEPS: dict[str, tuple[bool, Any, str]] = {
    "directory made": (_AFTER, Path, "mkdir"),
    "format made, empty": (_BEFORE, directory.os, "fdopen"),
    "index opened": (_AFTER, store_module, "open_index"),
    "index emptied": (_AFTER, recovery, "_empty"),
    "index rebuilt": (_AFTER, store_module, "rebuild"),
    "index repaired": (_AFTER, upkeep, "rebuild"),
    "boot written, not renamed": (_BEFORE, Path, "replace"),
    "boot noted": (_AFTER, store_module, "note_boot"),
    "counters opened": (_AFTER, store_module, "Counters"),
    "lock taken": (_AFTER, locks.ByteLocks, "try_exclusive"),
    "lock shared": (_AFTER, locks.ByteLocks, "try_shared"),
    "lock freed": (_AFTER, locks.ByteLocks, "unlock"),
    "flights opened": (_AFTER, fill, "ByteLocks"),
    "fetched": (_BEFORE, fill.StoreSink, "settle"),
    "space granted": (_AFTER, space.Space, "_grant"),
    "file created": (_AFTER, space, "SegmentWriter"),
    "file allocated": (_AFTER, writer.os, "posix_fallocate"),
    "file extended": (_AFTER, writer.SegmentWriter, "extend"),
    "header pending": (_AFTER, writer.SegmentWriter, "take"),
    "bytes written": (_BEFORE, writer.Reservation, "commit"),
    "header committed": (_AFTER, writer.Reservation, "commit"),
    "entry written, not committed": (_AFTER, index.Index, "put_entry"),
    "row written, not committed": (_AFTER, index.Index, "put_segment"),
    "index about to commit": (_BEFORE, index.Index, "write"),
    "index committed": (_AFTER, index.Index, "write"),
    "entry published": (_AFTER, publishing.Publishing, "_put_entries"),
    "mapped": (_AFTER, segment.MappedSegments, "view"),
    "file mapped": (_AFTER, segment, "Mapping"),
    "tail cut off": (_AFTER, writer.SegmentWriter, "finish"),
    "sealed": (_AFTER, space.Space, "_seal"),
    "adopted": (_AFTER, reclaim.Reclaimer, "_seal"),
    "entries forgotten": (_BEFORE, reclaim.Reclaimer, "_set_reserved"),
    "filler written": (_BEFORE, reclaim, "_FALLOCATE"),
    "hole punched": (_AFTER, reclaim, "_FALLOCATE"),
    "unlinked": (_AFTER, reclaim.Path, "unlink"),
    "swept": (_AFTER, reclaim.Reclaimer, "_set_reserved"),
    "staging row made": (_BEFORE, staging.Staging, "_new_file"),
    "staging file made": (_AFTER, staging.Staging, "_new_file"),
    "staging forgotten": (_AFTER, staging.Staging, "_forget"),
    "staging removed": (_AFTER, staging.Staging, "_remove"),
    "memory tier made": (_AFTER, tiers, "_make_memory_directory"),
    "listing made, empty": (_AFTER, manifest_store.fcntl, "flock"),
    "listing written, not renamed": (_BEFORE, manifest_store.os, "rename"),
    "listing renamed": (_AFTER, manifest_store.os, "rename"),
    "listing removed": (_AFTER, manifest_store, "_remove_unused"),
    "unnamed cache left, not removed": (_BEFORE, registry.shutil, "rmtree"),
    "unnamed cache removed": (_AFTER, registry.shutil, "rmtree"),
}


class _Plan:
    """What happened so far in this process, and what it is to die of."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.deadly: str | None = None
        self.left = -1

    def come_to(self, step: str) -> None:
        self.trace.append(step)
        if self.left >= 0 and self.deadly in (None, step):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1


_plan = _Plan()
_wrapped: set[str] = set()


def die_at(step: str | None, after: int) -> None:
    """Let this process die when it comes to a step (None: to any) for the `after`-th time from now, counted from 0."""
    _plan.deadly, _plan.left = step, after
    for name in STEPS if step is None else [step]:
        _wrap(name)


def trace() -> list[str]:
    """Return the steps that this process came to, from the call before this one on."""
    for name in STEPS:
        _wrap(name)
    steps, _plan.trace = _plan.trace, []
    return steps


def _wrap(step: str) -> None:
    if step not in _wrapped:
        _wrapped.add(step)
        when, owner, name = STEPS[step]
        inner = getattr(owner, name)
        wrap = _wrap_context if step.startswith("index ") and owner is index.Index else _wrap_call
        setattr(owner, name, wrap(step, when, inner))


def _wrap_call(step: str, when: bool, inner: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if when is _BEFORE:
            _plan.come_to(step)
        result = inner(*args, **kwargs)
        if when is _AFTER:
            _plan.come_to(step)
        return result

    return wrapper


def _wrap_context(step: str, when: bool, inner: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a transaction: before and after are those of its end."""

    @contextlib.contextmanager
    def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with inner(*args, **kwargs) as value:
            yield value
            if when is _BEFORE:
                _plan.come_to(step)
        if when is _AFTER:
            _plan.come_to(step)

    return wrapper
