"""`aiscache stats`: tell what is in a cache, how full it is and how it does."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from aiscache.cli.arguments import add_cache, add_json
from aiscache.cli.choice import Choice, choose
from aiscache.cli.table import align, capacity_bar
from aiscache.settings import format_size

if TYPE_CHECKING:
    from aiscache.cli.look import Look
    from aiscache.cli.users import User
    from aiscache.stats import CacheStats

_MOST_USERS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is there; nothing is made, and a running cache is not disturbed."""
    from aiscache.cli.look import look_at
    from aiscache.cli.users import users_of

    choice = choose(arguments.cache)
    look = look_at(choice)
    users = [] if look is None else users_of(choice.path)
    if arguments.json:
        print(json.dumps(as_json(choice, look, users), indent=2))
    elif look is None:
        print(no_cache(choice))
    else:
        print("\n".join(as_text(choice, look, users)))
    return 0


def no_cache(choice: Choice) -> str:
    """Return what there is to say of an unnamed cache that nobody uses."""
    from aiscache.cli.look import bytes_under

    left = bytes_under(choice.path)
    text = f"Nobody uses the unnamed cache ({choice.path}), so there is none."
    if left:
        text += f"\nA process that was killed left {format_size(left)} there; the next user, or `aiscache clear`, "
        text += "removes them."
    return text


def as_json(choice: Choice, look: Look | None, users: list[User]) -> dict[str, Any]:
    """Return all as plain data; the keys are always the same ones."""
    from aiscache.stats import CacheStats

    tiers = [] if look is None else look.tiers
    return {
        "path": str(choice.path),
        "named": choice.named,
        "exists": look is not None,
        "file_system": "" if look is None else look.file_system,
        "index_trusted": look is None or look.trusted,
        "objects": 0 if look is None else look.objects,
        "segments": sum(tier.segments for tier in tiers),
        "index_bytes": 0 if look is None else look.index_bytes,
        "tiers": {tier.name: {k: v for k, v in tier._asdict().items() if k != "name"} for tier in tiers},
        "users": [user._asdict() for user in users],
        "counters": (CacheStats() if look is None else look.counters).asdict(),
    }


def as_text(choice: Choice, look: Look, users: list[User]) -> list[str]:
    """Return the lines to print."""
    what = f"on {look.file_system}" if choice.named else f"unnamed, on {look.file_system}"
    lines = [f"{choice.path} ({what})"]
    if not look.trusted:
        lines.append("The machine was restarted, or the index is not made yet: the next user counts the objects anew.")
    lines += ["", *_tier_lines(look)]
    lines += ["", *align(_counter_rows(look.counters), left=1)]
    lines += ["", *user_lines(users)]
    return lines


def user_lines(users: list[User]) -> list[str]:
    """Return who uses the cache, a line each."""
    if not users:
        return ["In use by no other process that this user can see."]
    lines = [f"In use by {len(users)} other process{'es' if len(users) > 1 else ''}:"]
    lines += [f"  {user.pid:>7}  {user.command}" for user in users[:_MOST_USERS]]
    if len(users) > _MOST_USERS:
        lines.append(f"           and {len(users) - _MOST_USERS} more")
    return lines


def _tier_lines(look: Look) -> list[str]:
    rows = []
    for tier in look.tiers:
        share = f"{tier.used_bytes / tier.capacity_bytes:.0%}" if tier.capacity_bytes else "-"
        capacity = format_size(tier.capacity_bytes) if tier.capacity_bytes else "?"
        rows.append(
            (
                tier.name,
                capacity_bar(tier.used_bytes, tier.capacity_bytes),
                f"{format_size(tier.used_bytes)} of {capacity}",
                share,
                f"{tier.segments:,} segment{'' if tier.segments == 1 else 's'}",
            )
        )
    objects = f"{look.objects:,} object{'' if look.objects == 1 else 's'}" if look.trusted else "objects not counted"
    return [f"{objects}, index and listings {format_size(look.index_bytes)}", *align(rows, left=2)]


def _counter_rows(counters: CacheStats) -> list[tuple[str, str, str]]:
    return [
        ("hits", f"{counters.hits:,}", f"{counters.hit_ratio:.2%} of reads"),
        ("  from memory", f"{counters.hits_memory:,}", format_size(counters.bytes_memory)),
        ("  from disk", f"{counters.hits_disk:,}", format_size(counters.bytes_disk)),
        ("misses", f"{counters.misses:,}", ""),
        ("fetched from the cluster", f"{counters.fetched_objects:,}", format_size(counters.fetched_bytes)),
        ("waits for another's fetch", f"{counters.waits:,}", ""),
        ("staged for one read", f"{counters.staged:,}", ""),
        ("rejected, cache full", f"{counters.rejected:,}", ""),
        ("evicted", f"{counters.evicted_objects:,}", format_size(counters.evicted_bytes)),
        ("checksum failures", f"{counters.checksum_failures:,}", ""),
        ("fallbacks to the cluster", f"{counters.fallbacks:,}", ""),
        ("stalled", f"{counters.stall_s:,.1f} s", ""),
    ]
