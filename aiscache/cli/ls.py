"""`aiscache ls`: list the buckets in a cache, or the objects of a bucket."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiscache.cli.arguments import add_cache
from aiscache.cli.colour import paint
from aiscache.cli.progress import Progress
from aiscache.cli.sources import SourceUrl, source_url
from aiscache.cli.table import align
from aiscache.cli.wording import ago
from aiscache.settings import format_size

if TYPE_CHECKING:
    from aiscache.cli.objects import CachedObject

_TELL_EVERY = 5000  # objects


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.usage = "aiscache ls [options] [SOURCE]"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        type=source_url,
        help="list the objects of PROVIDER://BUCKET[/PREFIX]; without it, the buckets",
    )
    add_cache(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object per line instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """List; objects are printed as they are found, in the order in which they lie in the cache."""
    from aiscache.cli.objects import objects_in
    from aiscache.cli.opening import looked_at, nothing_there

    choice, look = looked_at(arguments.cache, most=None)  # all entries are asked for
    if look is None:
        print(nothing_there(choice), file=sys.stderr)
        return 0
    found = objects_in(choice.path, look)
    if arguments.source is None:
        _tell_buckets(found, total=look.objects, as_json=arguments.json)
    else:
        told = _tell_objects(_of(arguments.source, found), as_json=arguments.json)
        if not told and not arguments.json:
            print(f"Nothing of {arguments.source} is in {choice.path}.", file=sys.stderr)
    return 0


def _of(source: SourceUrl, found: Iterator[CachedObject]) -> Iterator[CachedObject]:
    """Yield the objects of a source."""
    place = source[:3]
    for one in found:
        ref = one.ref
        if (ref.provider, ref.namespace, ref.bucket) == place and ref.name.startswith(source.prefix):
            yield one


def _tell_objects(found: Iterator[CachedObject], *, as_json: bool) -> int:
    """Print objects as they come, and return how many there were."""
    number = 0
    if not as_json:
        title = f"{'SIZE':>10}  {'UNUSED FOR':>10}  {'TIER':<6}  {'VERSION':<16}  OBJECT"
        print(paint(title, "bold", sys.stdout))
    for one in found:
        number += 1
        if as_json:
            print(json.dumps(_as_json(one)))
            continue
        unused = ago(time.time() - one.used_at)
        name = one.ref.url.encode("utf-8", "backslashreplace").decode()
        print(f"{format_size(one.size):>10}  {unused:>10}  {one.tier:<6}  {one.version:<16}  {name}")
    return number


def _as_json(one: CachedObject) -> dict[str, object]:
    return {
        "url": one.ref.url,
        "provider": one.ref.provider,
        "namespace": one.ref.namespace,
        "bucket": one.ref.bucket,
        "name": one.ref.name,
        "etl": one.ref.etl,
        "size": one.size,
        "version": one.version,
        "tier": one.tier,
        "used_at": round(one.used_at, 3),
    }


def _tell_buckets(found: Iterator[CachedObject], *, total: int, as_json: bool) -> None:
    from aiscache.cli.shares import bucket_of

    objects: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    used: dict[str, float] = defaultdict(float)
    progress = Progress()
    for number, one in enumerate(found):
        bucket = bucket_of(one.ref)
        objects[bucket] += 1
        sizes[bucket] += one.size
        used[bucket] = max(used[bucket], one.used_at)
        if number % _TELL_EVERY == 0:
            progress.show(f"looked at {number:,} of {total:,} objects")
    progress.clear()
    order = sorted(objects, key=lambda bucket: (-sizes[bucket], bucket))
    if as_json:
        for bucket in order:
            told = {"bucket": bucket, "objects": objects[bucket], "bytes": sizes[bucket], "used_at": used[bucket]}
            print(json.dumps(told))
        return
    everything = max(1, sum(sizes.values()))
    rows = [("BUCKET", "OBJECTS", "SIZE", "SHARE", "UNUSED FOR")]
    for bucket in order:
        share, unused = f"{sizes[bucket] / everything:.1%}", ago(time.time() - used[bucket])
        rows.append((bucket, f"{objects[bucket]:,}", format_size(sizes[bucket]), share, unused))
    title, *lines = align(rows)
    print(paint(title, "bold", sys.stdout))
    print("\n".join(lines) if lines else "(the cache is empty)")
