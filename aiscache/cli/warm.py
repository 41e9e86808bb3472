"""`aiscache warm`: fetch objects into the cache before a training run needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiscache.cli.arguments import add_cache, add_json, size_bytes, whole_number
from aiscache.cli.choice import Choice, choose
from aiscache.cli.reach import client_of
from aiscache.cli.sources import SourceUrl, by_bucket, endpoint_of, expanded, read_names, sdk_sources, source_url
from aiscache.cli.wording import counted
from aiscache.errors import ConfigError
from aiscache.settings import env_flag, format_size

if TYPE_CHECKING:
    from aiscache.warm import Warmed

_MOST_FAILURES = 20
_EXAMPLES = """\
examples:
  aiscache warm ais://imagenet --cache /mnt/nvme/aiscache --capacity 200GB
  aiscache warm s3://data/train/ --dry-run
  aiscache warm ais://shards --template 'shard-{0000..0099}.tar'
  srun --ntasks-per-node=1 aiscache warm ais://imagenet
"""
_RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # of torchrun, of Slurm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.usage = "aiscache warm [options] SOURCE ..."
    parser.epilog, parser.formatter_class = _EXAMPLES, argparse.RawDescriptionHelpFormatter
    count = whole_number(least=1)
    what = parser.add_argument_group("what to fetch")
    what.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        type=source_url,
        help="PROVIDER://BUCKET[/PREFIX], as in ais://imagenet/train/ or s3://data",
    )
    names = what.add_mutually_exclusive_group()
    names.add_argument("--template", metavar="T", help="append a range to SOURCE, as in 'shard-{0000..0099}.tar'")
    names.add_argument(
        "--list-file", metavar="FILE", help="fetch what is on its lines: URLs, or names to append to SOURCE; '-': stdin"
    )
    what.add_argument("--etl", metavar="NAME", help="through this ETL of the cluster")
    what.add_argument("--limit", metavar="N", type=count, help="only the first N objects")
    what.add_argument("--split", action="store_true", help="only this task's part, by torchrun's or Slurm's variables")
    what.add_argument("--rank", metavar="R", type=whole_number(least=0), help="only part R of --world-size parts")
    what.add_argument("--world-size", metavar="N", type=count, help="how many parts there are")
    where = parser.add_argument_group("from where to where")
    where.add_argument("--endpoint", metavar="URL", help="the cluster (default: AIS_ENDPOINT)")
    add_cache(where)
    where.add_argument("--capacity", metavar="SIZE", type=size_bytes, help="set the cache's capacity, as in 200GB")
    where.add_argument("--partial", action="store_true", help="fetch what fits, if not all does")
    how = parser.add_argument_group("how")
    how.add_argument("--processes", metavar="N", type=count, help="default: half of the cores, at most 4")
    how.add_argument(
        "--connections", metavar="N", type=count, help="requests of each at a time (default: 32; one alone: 64)"
    )
    how.add_argument("-n", "--dry-run", action="store_true", help="say what is missing and whether it fits")
    how.add_argument("--no-progress", action="store_true", help="show no bar (without a terminal there is none)")
    add_json(how)


def run(arguments: argparse.Namespace) -> int:
    """Warm, and tell; returns 1 if something that was asked for is not there, or with --dry-run would not fit."""
    from aistore.sdk import Client

    from aiscache.cache import Cache

    names = _names(arguments)
    rank, world_size = _part(arguments)
    choice = _cache_that_stays(arguments.cache)
    endpoint = endpoint_of(arguments.endpoint)
    client = Client(endpoint) if env_flag("AISCACHE_OFFLINE") else client_of(endpoint)
    sources, prefixes = sdk_sources(client, arguments.sources, names=names)
    with Cache(choice.path if choice.named else None, capacity=arguments.capacity) as cache, _said_if_interrupted():
        warmed = cache.warm(
            sources,
            prefixes,
            arguments.etl,
            processes=arguments.processes,
            connections=arguments.connections,
            limit=arguments.limit,
            rank=rank,
            world_size=world_size,
            partial=arguments.partial,
            dry_run=arguments.dry_run,
            show_progress=not arguments.no_progress,
        )
    _tell(choice, warmed, asked=_asked(arguments, rank=rank, world_size=world_size), as_json=arguments.json)
    if warmed.need.objects == 0 and world_size == 1:
        return 1
    good = warmed.need.fits and not warmed.failures if warmed.dry_run else warmed.complete
    return 0 if good else 1


@contextmanager
def _said_if_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted. What was fetched stays; the same command goes on from there.", file=sys.stderr)
        raise


def _cache_that_stays(cache: str | None) -> Choice:
    """Return the cache; ConfigError for one that would end with this command."""
    from aiscache.cli.look import unnamed_in_use

    choice = choose(cache)
    if not choice.named and not unnamed_in_use(choice.path):
        raise ConfigError(
            "the unnamed cache lasts as long as some process uses it, and none does: it would end with this command; "
            "name a cache with --cache DIR, or set AISCACHE_DIR"
        )
    return choice


def _names(arguments: argparse.Namespace) -> dict[SourceUrl, list[str]] | None:
    """Return the names to fetch of each bucket, None for all; ConfigError if it is not clear what to fetch."""
    if arguments.template is not None and len(arguments.sources) != 1:
        raise ConfigError(f"--template goes with one SOURCE, not with {len(arguments.sources)}")
    if arguments.template is not None:
        return by_bucket(arguments.sources, expanded(arguments.template))
    if arguments.list_file is not None:
        return by_bucket(arguments.sources, read_names(arguments.list_file))
    if not arguments.sources:
        raise ConfigError("what is to be fetched? Give a SOURCE, as in ais://imagenet, or --list-file FILE")
    return None


def _asked(arguments: argparse.Namespace, *, rank: int, world_size: int) -> str:
    """Return what is to be fetched as the user wrote it."""
    names = filter(None, (arguments.template, arguments.list_file))
    part = f" (part {rank} of {world_size})" if world_size > 1 else ""
    return ", ".join([*map(str, arguments.sources), *names]) + part


def _part(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return rank and world size: all (0 of 1) unless a part was asked for."""
    rank, world_size = arguments.rank, arguments.world_size
    if (rank is None) != (world_size is None):
        raise ConfigError("--rank and --world-size go together")
    if rank is None and arguments.split:
        rank, world_size = _part_by_environment()
    if rank is None:
        return 0, 1
    if rank >= world_size:
        raise ConfigError(f"rank {rank} must be less than the world size, {world_size}")
    return rank, world_size


def _part_by_environment() -> tuple[int, int]:
    for names in _RANKS:
        values = [os.environ.get(name, "") for name in names]
        if all(value.isdecimal() for value in values):
            return int(values[0]), int(values[1])
    wanted = " nor ".join(f"{rank} and {size}" for rank, size in _RANKS)
    raise ConfigError(f"--split: neither {wanted} are set to numbers; start it with torchrun or srun, or give --rank")


def _tell(choice: Choice, warmed: Warmed, *, asked: str, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {"path": str(choice.path), **warmed.asdict()}
        print(json.dumps(told, indent=2))
        return
    if warmed.need.objects:
        print("\n".join(_dry_lines(choice, warmed) if warmed.dry_run else _lines(choice, warmed)))
    elif not warmed.failures:
        print(f"There are no objects in {asked}: check bucket and prefix.", file=sys.stderr)
    _tell_failures(warmed)


def _lines(choice: Choice, warmed: Warmed) -> list[str]:
    need = warmed.need
    here = need.present_objects + warmed.fetched_objects + warmed.came_objects
    asked = here + warmed.unfit_objects + len(warmed.failures)
    everything = f"{counted(asked, 'object')} ({format_size(need.bytes)})"
    if here == asked == need.present_objects:
        return [f"All of {everything} are in {choice.path} already; {warmed.seconds:.1f} s."]
    lines = []
    if warmed.fetched_objects:
        size, rate = format_size(warmed.fetched_bytes), format_size(warmed.fetched_bytes / warmed.fetch_s)
        fetched = f"Fetched {counted(warmed.fetched_objects, 'object')}, {size}"
        per_s = f"{warmed.fetched_objects / warmed.fetch_s:,.0f} objects/s, {rate}/s"
        lines.append(f"{fetched}, in {warmed.fetch_s:.1f} s ({per_s}).")
    if warmed.came_objects:
        lines.append(f"Another process fetched {counted(warmed.came_objects, 'object')} meanwhile.")
    if warmed.unfit_objects:
        lines.append(f"No room for {counted(warmed.unfit_objects, 'object')}: the cache is full.")
    return [*lines, f"{here:,} of {everything} are in {choice.path}."]


def _dry_lines(choice: Choice, warmed: Warmed) -> list[str]:
    need = warmed.need
    if not need.missing_objects:
        return [f"All of {counted(need.objects, 'object')} ({format_size(need.bytes)}) are in {choice.path}."]
    lines = [
        f"{counted(need.objects, 'object')}, {format_size(need.bytes)}; {need.present_objects:,} are in {choice.path}, "
        f"{need.missing_objects:,} ({format_size(need.missing_bytes)}) are missing."
    ]
    room = f"{format_size(need.free_bytes)} are free"
    if need.evictable_bytes:
        room += f", {format_size(need.evictable_bytes)} more can be freed of what nobody uses"
    verdict = "They fit" if need.fits else "They do not fit"
    return [*lines, f"{verdict}: they need {format_size(need.needed_bytes)}, {room}."]


def _tell_failures(warmed: Warmed) -> None:
    if not warmed.failures:
        return
    print(f"{counted(len(warmed.failures), 'object')} could not be fetched:", file=sys.stderr)
    for failure in warmed.failures[:_MOST_FAILURES]:
        print(f"  {failure.url}: {failure.error}", file=sys.stderr)
    if len(warmed.failures) > _MOST_FAILURES:
        print(f"  and {len(warmed.failures) - _MOST_FAILURES:,} more; --json has all", file=sys.stderr)
