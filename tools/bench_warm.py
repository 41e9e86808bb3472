#!/usr/bin/env python3
"""Measures `aiscache warm` beside the bare prefetcher pool that it drives.

    .venv/bin/python tools/bench_warm.py                 # 20,000 x 4 KiB and 4,000 x 100 KiB, 5 repeats
    .venv/bin/python tools/bench_warm.py --repeats 9 --json results.json

`pool` is a program that lists the bucket and has a pool fetch all of it; `warm` is the command line with nothing else
to do. Both are processes of their own with a cache of their own on tmpfs, and take turns. `fetch` is the rate from the
start of the pool until all objects are in the cache, `all` that of the whole process, interpreter and imports included.
`again` is the second run of the command, which finds all. Printed are the median, minimum and maximum over the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = {"20,000 x 4 KiB": ("small", 20_000, 4 << 10), "4,000 x 100 KiB": ("large", 4_000, 100 << 10)}
Result = dict[str, float]


def pool(endpoint: str, bucket: str, path: str) -> float:
    """Have a pool fetch a bucket; return the seconds that took, without the listing."""
    import numpy as np
    from aistore.sdk import Client

    from aiscache import Cache
    from aiscache.manifest import Listing, ManifestStore
    from aiscache.origin import Origin
    from aiscache.prefetch import Job, Prefetcher
    from aiscache.prefetch.job import default_processes

    client = Client(endpoint)
    with Cache(path, capacity="4GB") as cache:
        store = cache.store()
        assert store is not None
        listing = Listing(client.bucket(bucket))
        manifest = ManifestStore(str(store.directory.manifests)).load_or_build(listing.identity, listing.build)
        origin = Origin.from_client(client)
        job = Job(cache, (manifest,), {origin.uuid: origin}, default_processes(), 32, 512_000_000)
        prefetcher = Prefetcher(job)
        began = time.perf_counter()
        epoch = prefetcher.begin()
        assert epoch.publish(np.arange(len(manifest)))
        while store.count() < len(manifest):
            time.sleep(0.005)
        took_s = time.perf_counter() - began
        prefetcher.close()
    return took_s


class Bench:
    def __init__(self, endpoint: str, *, repeats: int) -> None:
        self.endpoint, self.repeats = endpoint, repeats
        self.directory = tempfile.mkdtemp(prefix="aiscache-bench-", dir="/dev/shm")
        self.results: dict[str, list[Result]] = {}

    def run(self, kind: str, bucket: str, count: int) -> Result:
        path = os.path.join(self.directory, "cache")
        shutil.rmtree(path, ignore_errors=True)
        warm = [sys.executable, "-m", "aiscache", "warm", f"ais://{bucket}", "--endpoint", self.endpoint, "--json"]
        warm += ["--cache", path, "--capacity", "4GB"]
        command = warm if kind == "warm" else [sys.executable, __file__, "--child", self.endpoint, bucket, path]
        took_s, told = self.timed(command)
        fetch_s = told["fetch_s"] if kind == "warm" else float(told)
        figures = {"fetch objects/s": count / fetch_s, "all objects/s": count / took_s}
        if kind == "warm":
            figures["again s"] = self.timed(warm)[0]
        return figures

    def timed(self, command: list[str]) -> tuple[float, dict[str, float]]:
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
        return time.perf_counter() - began, json.loads(done.stdout)

    def compare(self, title: str, bucket: str, count: int) -> None:
        rows: dict[str, list[Result]] = {"pool": [], "warm": []}
        for _ in range(self.repeats):
            for kind, found in rows.items():
                found.append(self.run(kind, bucket, count))
        print(f"\n{title}")
        for kind, found in rows.items():
            cells = [f"{name} {_spread([row[name] for row in found])}" for name in found[0]]
            print(f"  {kind:<6} {'   '.join(cells)}", flush=True)
        for name in ("fetch objects/s", "all objects/s"):
            warm, bare = (statistics.median(row[name] for row in rows[kind]) for kind in ("warm", "pool"))
            print(f"  warm / pool, {name}: {warm / bare:.2f}")
        self.results |= {f"{title}, {kind}": found for kind, found in rows.items()}


def _spread(values: list[float]) -> str:
    digits = 0 if min(values) > 100 else 2
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if arguments.child:
        print(pool(*arguments.child))
        return
    from aiscache.devserver import DevCluster

    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, the server on the same")
    with DevCluster(targets=arguments.targets) as cluster:
        bench = Bench(cluster.endpoint, repeats=arguments.repeats)
        try:
            for title, (bucket, count, size) in SHAPES.items():
                cluster.generate(bucket, count, size)
                bench.compare(title, bucket, count)
        finally:
            shutil.rmtree(bench.directory, ignore_errors=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(bench.results, indent=1))


if __name__ == "__main__":
    main()
