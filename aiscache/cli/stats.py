"""`aiscache stats`: tell what is in a cache, how full it is and how it does."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from aiscache.cli.arguments import add_cache, duration_s
from aiscache.cli.choice import Choice
from aiscache.cli.colour import paint
from aiscache.cli.table import align, capacity_bar
from aiscache.cli.wording import counted
from aiscache.settings import format_size

if TYPE_CHECKING:
    from aiscache.cli.look import Look
    from aiscache.cli.shares import Shares
    from aiscache.cli.users import User
    from aiscache.stats import CacheStats

_MOST_USERS = 8
_MOST_BUCKETS = 8
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_NEARLY_FULL, _FULL = 0.8, 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    form.add_argument(
        "--prometheus", action="store_true", help="print Prometheus' text format, for the textfile collector"
    )
    parser.add_argument(
        "--watch",
        metavar="TIME",
        type=duration_s,
        nargs="?",
        const=2.0,
        help="tell again every 2 s (or TIME, as in 10s), with rates, until Ctrl-C; JSON is one line each then",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what is there; nothing is made, and a running cache is not disturbed."""
    from aiscache.cli.opening import looked_at

    if arguments.watch is not None:
        return _watch(arguments)
    choice, look = looked_at(arguments.cache)
    if arguments.prometheus:
        from aiscache.cli.prometheus import exposition

        print(exposition(choice.path, look), end="")
    elif arguments.json:
        print(json.dumps(_as_json_now(choice, look), indent=2))
    else:
        print("\n".join(_as_text_now(choice, look)))
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    """Tell again and again; on a terminal in place."""
    from aiscache.cli.opening import looked_at
    from aiscache.cli.prometheus import exposition

    before: CacheStats | None = None
    asked_at = time.monotonic()
    while True:
        choice, look = looked_at(arguments.cache)
        now = time.monotonic()
        if arguments.json:
            print(json.dumps(_as_json_now(choice, look)), flush=True)
        elif arguments.prometheus:
            print(exposition(choice.path, look), flush=True)
        else:
            rates = None if look is None or before is None else _rates(look.counters - before, now - asked_at)
            screen = "\n".join(_as_text_now(choice, look, rates=rates))
            print((_HOME_AND_CLEAR if sys.stdout.isatty() else "") + screen + "\n", flush=True)
        before, asked_at = None if look is None else look.counters, now
        time.sleep(arguments.watch)


def _rates(did: CacheStats, seconds: float) -> dict[str, float]:
    """Return what was counted per second."""
    return {name: value / seconds for name, value in did.asdict().items()}


def _as_json_now(choice: Choice, look: Look | None) -> dict[str, Any]:
    from aiscache.cli.shares import shares_in
    from aiscache.cli.users import users_of

    if look is None:
        return as_json(choice, None, [], shares=None)
    return as_json(choice, look, users_of(choice.path), shares=shares_in(choice.path, look))


def _as_text_now(choice: Choice, look: Look | None, *, rates: dict[str, float] | None = None) -> list[str]:
    from aiscache.cli.shares import shares_in
    from aiscache.cli.users import users_of

    if look is None:
        return [no_cache(choice)]
    return as_text(choice, look, users_of(choice.path), shares=shares_in(choice.path, look), rates=rates)


def no_cache(choice: Choice) -> str:
    """Return what there is to say of an unnamed cache that nobody uses."""
    from aiscache.cli.look import bytes_under

    left = bytes_under(choice.path)
    text = f"Nobody uses the unnamed cache ({choice.path}), so there is none."
    if left:
        text += f"\nA process that was killed left {format_size(left)} there; the next user, or `aiscache clear`, "
        text += "removes them."
    return text


def as_json(choice: Choice, look: Look | None, users: list[User], *, shares: Shares | None) -> dict[str, Any]:
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
        "buckets": [] if shares is None else [share._asdict() for share in shares.buckets],
        "buckets_exact": shares is None or shares.exact,
        "users": [user._asdict() for user in users],
        "counters": (CacheStats() if look is None else look.counters).asdict(),
    }


def as_text(
    choice: Choice, look: Look, users: list[User], *, shares: Shares, rates: dict[str, float] | None = None
) -> list[str]:
    """Return the lines to print; `rates` are by counter, per second."""
    what = f"on {look.file_system}" if choice.named else f"unnamed, on {look.file_system}"
    lines = [paint(str(choice.path), "bold", sys.stdout) + f" ({what})"]
    if not look.trusted:
        lines.append("The machine was restarted, or the index is not made yet: the next user counts the objects anew.")
    lines += ["", *_tier_lines(look)]
    if shares.buckets:
        lines += ["", *_share_lines(shares)]
    lines += ["", *align(_counter_rows(look.counters, rates), left=1)]
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
                counted(tier.segments, "segment"),
            )
        )
    objects = counted(look.objects, "object") if look.trusted else "objects not counted"
    title = f"{objects}, index and listings {format_size(look.index_bytes)}"
    return [title, *map(_with_coloured_bar, align(rows, left=2))]


def _with_coloured_bar(line: str) -> str:
    """Colour the bar by how full it is."""
    start, end = line.index("["), line.index("]") + 1
    filled = line.count("#") / (end - start - 2)
    style = "red" if filled >= _FULL else "yellow" if filled >= _NEARLY_FULL else "green"
    return line[:start] + paint(line[start:end], style, sys.stdout) + line[end:]


def _share_lines(shares: Shares) -> list[str]:
    rows = [
        (share.bucket, f"{share.bytes:.0%} of the bytes", f"{share.objects:.0%} of the objects")
        for share in shares.buckets[:_MOST_BUCKETS]
    ]
    title = "Buckets:" if shares.exact else "Buckets, from a sample (aiscache ls counts them):"
    lines = [title, *(f"  {line}" for line in align(rows))]
    if len(shares.buckets) > _MOST_BUCKETS:
        lines.append(f"  and {counted(len(shares.buckets) - _MOST_BUCKETS, 'bucket')} more")
    return lines


def _counter_rows(counters: CacheStats, rates: dict[str, float] | None) -> list[tuple[str, ...]]:
    """Return name, number, size or share, and in watching the rate of each counter."""
    reads = counters.hits + counters.misses
    rows = [
        ("hits", "hits", f"{counters.hits:,}", f"{counters.hit_ratio:.2%} of reads" if reads else "nothing read yet"),
        ("  from memory", "hits_memory", f"{counters.hits_memory:,}", format_size(counters.bytes_memory)),
        ("  from disk", "hits_disk", f"{counters.hits_disk:,}", format_size(counters.bytes_disk)),
        ("misses", "misses", f"{counters.misses:,}", ""),
        (
            "fetched from the cluster",
            "fetched_objects",
            f"{counters.fetched_objects:,}",
            format_size(counters.fetched_bytes),
        ),
        (
            "  of these ahead of readers",
            "prefetched_objects",
            f"{counters.prefetched_objects:,}",
            format_size(counters.prefetched_bytes),
        ),
        ("waits for another's fetch", "waits", f"{counters.waits:,}", ""),
        ("staged for one read", "staged", f"{counters.staged:,}", ""),
        ("rejected, cache full", "rejected", f"{counters.rejected:,}", ""),
        ("evicted", "evicted_objects", f"{counters.evicted_objects:,}", format_size(counters.evicted_bytes)),
        ("checksum failures", "checksum_failures", f"{counters.checksum_failures:,}", ""),
        ("fallbacks to the cluster", "fallbacks", f"{counters.fallbacks:,}", ""),
        ("stalled", "stall_s", f"{counters.stall_s:,.1f} s", ""),
    ]
    if rates is None:
        return [(title, number, more) for title, _, number, more in rows]
    return [(title, number, more, f"{rates[name]:,.1f}/s" if rates[name] else "") for title, name, number, more in rows]
