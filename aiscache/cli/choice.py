"""Which cache a command is about: `--cache`, else AISCACHE_DIR, else the unnamed one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from aiscache.settings import CacheSettings


class Choice(NamedTuple):
    """A cache's directory, and whether the user named it."""

    path: Path
    named: bool


def choose(cache: str | None) -> Choice:
    """Return the cache that datasets would use with `cache=` set so; nothing is made or opened."""
    settings = CacheSettings.resolve(cache or None)
    if settings.path is not None:
        return Choice(Path(settings.path), named=True)
    from aiscache.store.registry import unnamed_path

    return Choice(unnamed_path(), named=False)
