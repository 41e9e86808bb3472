"""`aiscache evict`: remove some objects from a cache, by bucket, by name or by age."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from aiscache.cli.arguments import add_cache, add_json, duration_s
from aiscache.cli.sources import SourceUrl, source_url
from aiscache.cli.wording import counted
from aiscache.errors import ConfigError
from aiscache.settings import format_size

if TYPE_CHECKING:
    from aiscache.cache import Cache
    from aiscache.cli.choice import Choice
    from aiscache.store import Swept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.usage = "aiscache evict [options] [SOURCE ...]"
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        type=source_url,
        help="the objects of PROVIDER://BUCKET[/PREFIX]; without it, of all buckets (give --older-than then)",
    )
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        type=duration_s,
        default=0.0,
        help="only what was not read for so long, as in 12h or 7d (known per segment, of 256 MiB mostly)",
    )
    parser.add_argument(
        "--force", action="store_true", help="also what processes have mapped; they keep it until they let go"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask (without a terminal it never asks)")
    add_cache(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say what will go, ask, and remove it. Returns 1 if the user said no."""
    from aiscache.cli.opening import agreed, nothing_there, opened
    from aiscache.store import Swept

    if not arguments.sources and not arguments.older_than:
        raise ConfigError("evict what? Give a SOURCE or --older-than AGE; `aiscache clear` removes everything")
    with opened(arguments.cache) as (choice, cache):
        if cache is None:
            _tell(choice, Swept(), arguments) if arguments.json else print(nothing_there(choice))
            return 0
        swept = _evict(cache, arguments, dry_run=True)
        if not arguments.dry_run:
            question = (
                f"Evict {counted(swept.objects, 'object')} ({format_size(swept.freed_bytes)}) from {choice.path}?"
            )
            if swept.objects and not agreed(question, yes=arguments.yes):
                print("Nothing was removed.", file=sys.stderr)
                return 1
            swept = _evict(cache, arguments, dry_run=False)
        _tell(choice, swept, arguments)
    return 0


def _evict(cache: Cache, arguments: argparse.Namespace, *, dry_run: bool) -> Swept:
    """Evict source by source, or from all buckets."""
    from aiscache.origin.names import BucketName
    from aiscache.store import Swept

    total = Swept()
    sources: list[SourceUrl | None] = list(arguments.sources) or [None]
    for url in sources:
        bucket = None if url is None else BucketName(name=url.bucket, provider=url.provider, namespace=url.namespace)
        total += cache.evict(
            bucket,
            "" if url is None else url.prefix,
            arguments.force,
            unused_for_s=arguments.older_than,
            dry_run=dry_run,
        )
    return total


def _tell(choice: Choice, swept: Swept, arguments: argparse.Namespace) -> None:
    if arguments.json:
        told = {
            "path": str(choice.path),
            "dry_run": arguments.dry_run,
            "objects": swept.objects,
            "freed_bytes": swept.freed_bytes,
            "skipped_objects": swept.skipped,
        }
        print(json.dumps(told, indent=2))
        return
    objects, size = counted(swept.objects, "object"), format_size(swept.freed_bytes)
    if arguments.dry_run:
        print(f"Would evict {objects} from {choice.path}; about {size} would come free.")
    elif swept.objects:
        print(f"Evicted {objects} from {choice.path}, {size} came free.")
    else:
        print(f"Nothing to evict in {choice.path}.")
    if swept.skipped:
        kept = f"{counted(swept.skipped, 'object')} stayed: mapped by some process (see: aiscache stats)"
        print(f"{kept}; --force evicts what is mapped, too.")
