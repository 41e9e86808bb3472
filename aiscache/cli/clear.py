"""`aiscache clear`: remove all objects from a cache."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from aiscache.cli.arguments import add_cache, add_json
from aiscache.cli.choice import Choice
from aiscache.cli.stats import user_lines
from aiscache.cli.wording import counted
from aiscache.settings import format_size

if TYPE_CHECKING:
    from aiscache.cli.look import Look
    from aiscache.cli.users import User


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask (without a terminal it never asks)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Name who uses the cache, ask, and clear it. Returns 1 if the user said no."""
    from aiscache.cli.opening import agreed, looked_at
    from aiscache.cli.users import users_of

    choice, look = looked_at(arguments.cache)
    users = [] if look is None else users_of(choice.path)
    if users:
        print("\n".join(user_lines(users)), file=sys.stderr)
        print("They keep what they have mapped until they let go, and fetch the rest again.", file=sys.stderr)
    if look is not None and not agreed(_question(choice, look), yes=arguments.yes):
        print("Nothing was removed.", file=sys.stderr)
        return 1
    objects, freed = _clear(choice, look)
    _report(choice, objects, freed, users=users, as_json=arguments.json)
    return 0


def _question(choice: Choice, look: Look) -> str:
    used = format_size(sum(tier.used_bytes for tier in look.tiers))
    return f"Remove {counted(look.objects, 'object')} ({used}) from {choice.path}?"


def _clear(choice: Choice, look: Look | None) -> tuple[int, int]:
    """Return how many objects were removed and the bytes that came free."""
    from aiscache.cache import Cache
    from aiscache.cli.look import bytes_under

    if look is None:  # the unnamed cache, which nobody uses: joining it removes what a killed process left, leaving too
        left = bytes_under(choice.path)
        if left:
            Cache(None).close()
        return 0, left
    with Cache(choice.path if choice.named else None) as cache:
        swept = cache.clear()
    return swept.objects, swept.freed_bytes


def _report(choice: Choice, objects: int, freed_bytes: int, *, users: list[User], as_json: bool) -> None:
    if as_json:
        told = {
            "path": str(choice.path),
            "objects": objects,
            "freed_bytes": freed_bytes,
            "users": [user._asdict() for user in users],
        }
        print(json.dumps(told, indent=2))
    elif objects or freed_bytes:
        print(f"Removed {counted(objects, 'object')} from {choice.path}, {format_size(freed_bytes)} came free.")
    else:
        print(f"Nothing to remove in {choice.path}.")
