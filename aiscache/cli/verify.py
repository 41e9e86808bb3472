"""`aiscache verify`: check all bytes in a cache, and drop what is damaged."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from aiscache.cli.arguments import add_cache, add_json
from aiscache.cli.wording import counted
from aiscache.settings import format_size

if TYPE_CHECKING:
    from aiscache.cache import Cache
    from aiscache.keys import ObjectRef
    from aiscache.store import Record

_MOST_DAMAGED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check; returns 1 if something was damaged: it was dropped, and is fetched again when it is read next."""
    from aiscache.cli.opening import nothing_there, opened

    with opened(arguments.cache) as (choice, cache):
        objects, size, damaged = (0, 0, []) if cache is None else _verify(cache)
    if arguments.json:
        told = {"path": str(choice.path), "objects": objects, "bytes": size, "damaged": [ref.url for ref in damaged]}
        print(json.dumps(told, indent=2))
    elif cache is None:
        print(nothing_there(choice))
    else:
        result = "all are what was written" if not damaged else f"{len(damaged):,} damaged"
        print(f"Checked {counted(objects, 'object')}, {format_size(size)}: {result}.")
        _tell_damaged(damaged)
    return 1 if damaged else 0


def _verify(cache: Cache) -> tuple[int, int, list[ObjectRef]]:
    """Return how many objects and bytes were checked, and what was damaged."""
    from aiscache.bars import ObjectsBar

    store = cache._require_store()
    used_bytes = sum(used for used, _ in store.upkeep.usage().values())
    objects = size = 0
    with ObjectsBar("verify", objects=store.upkeep.count(), size_bytes=used_bytes) as bar:

        def checked(record: Record) -> None:
            nonlocal objects, size
            objects, size = objects + 1, size + record.length
            bar.move(objects=objects, size_bytes=size)

        damaged = cache.verify(checked)
    return objects, size, damaged


def _tell_damaged(damaged: list[ObjectRef]) -> None:
    if damaged:
        print("Dropped, to be fetched again when they are read next:", file=sys.stderr)
    for ref in damaged[:_MOST_DAMAGED]:
        print(f"  {ref.url}", file=sys.stderr)
    if len(damaged) > _MOST_DAMAGED:
        print(f"  and {len(damaged) - _MOST_DAMAGED:,} more; --json has all", file=sys.stderr)
