"""`aiscache repair`: make the index of a cache anew from its segments."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from aiscache.cli.arguments import add_cache, add_json
from aiscache.cli.wording import counted

if TYPE_CHECKING:
    from aiscache.cache import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Repair; payloads are not read (`aiscache verify` does), and other processes may use the cache meanwhile."""
    from aiscache.cli.opening import nothing_there, opened

    with opened(arguments.cache) as (choice, cache):
        before, after = (0, 0) if cache is None else _repair(cache)
    if arguments.json:
        print(json.dumps({"path": str(choice.path), "objects_before": before, "objects": after}, indent=2))
    elif cache is None:
        print(nothing_there(choice))
    else:
        found = f"{counted(after, 'object')} found" + (f", {before:,} before" if before != after else ", as before")
        print(f"The index of {choice.path} is new: {found}.")
    return 0


def _repair(cache: Cache) -> tuple[int, int]:
    """Return the number of objects before and after."""
    from aiscache.counting import counting

    store = cache._require_store()
    before = store.upkeep.count()
    with counting("repair", "objects", total=before) as found:
        after = cache.repair(found)
    return before, after
