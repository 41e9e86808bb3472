#!/usr/bin/env python3
"""Measures the prefetcher: whether a training loop waits for data, and what the pool costs.

    .venv/bin/python tools/bench_prefetch.py                      # everything, 3 repeats
    .venv/bin/python tools/bench_prefetch.py --only cold --repeats 5 --json results.json

A training step of fixed length follows each batch of 64: `sleep` waits (an accelerator works), `busy` computes in the
trainer's process. The bound for a run is the longer one of computing alone (steps times their length) and fetching
alone (the same loader without a step, in a cache of its own). Each run is a process of its own. Printed are the median,
minimum and maximum over the repeats.
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
from typing import Any

BUCKET = "bench"
BATCH = 64
Result = dict[str, float]


def make_loader(endpoint: str, directory: str, *, capacity: int, seed: int, kind: str = "ours", **options: Any) -> Any:
    import torch
    from aistore.sdk import Client

    from aiscache import AISMapDataset, Cache, DataLoader

    dataset = AISMapDataset(Client(endpoint).bucket(BUCKET), cache=Cache(directory, capacity=capacity), content="view")
    generator = torch.Generator().manual_seed(seed)
    arguments: dict[str, Any] = {
        "batch_size": BATCH, "shuffle": True, "num_workers": 2, "generator": generator, "collate_fn": list, **options
    }  # fmt: skip
    if kind == "torch":
        return torch.utils.data.DataLoader(dataset, **arguments)
    return DataLoader(dataset, **arguments)


def step(kind: str, length_s: float) -> None:
    if kind == "sleep":
        time.sleep(length_s)
    else:
        until = time.perf_counter() + length_s
        while time.perf_counter() < until:
            sum(range(100))


def loop(endpoint: str, directory: str, **options: Any) -> Result:
    """Run epochs, the last of which is measured."""
    from tests.prefetch.processes import pool_processes, pss_bytes

    kind, length_s, epochs = options.pop("step"), options.pop("length_s"), options.pop("epochs")
    loader = make_loader(endpoint, directory, seed=epochs, **options)
    cache = loader.dataset.cache
    figures: Result = {}
    for _ in range(epochs):
        before, began, count, largest = cache.stats(), time.perf_counter(), 0, 0
        for batch in loader:
            count += len(batch)
            step(kind, length_s)
            if count % (20 * BATCH) == 0:
                largest = max([largest, *map(pss_bytes, pool_processes(os.getpid()))])
        took_s = time.perf_counter() - began
        did = cache.stats() - before
        figures = {"s": took_s, "fetched/object": did.fetched_objects / count, "stall s": did.stall_s}
        figures["PSS MB"] = largest / 1e6
        if loader.prefetcher is not None:
            told = loader.prefetcher.stats()
            figures |= {name: float(getattr(told, name)) for name in ("staged", "left", "no_room", "deaths")}
    return figures


def first_batch(endpoint: str, directory: str, **options: Any) -> Result:
    """Time to the first batch, of our loader over a warm cache or of torch's over a list."""
    import torch

    if options.pop("listed"):
        data: Any = [("name", bytes(100_000))] * options["capacity"]
        loader: Any = torch.utils.data.DataLoader(
            data[:1000], batch_size=BATCH, num_workers=2, collate_fn=list, multiprocessing_context="spawn"
        )
    else:
        loader = make_loader(
            endpoint, directory, capacity=1 << 40, seed=1, kind=options["kind"], multiprocessing_context="spawn"
        )
    took = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in loader:
            took.append(time.perf_counter() - began)
            break
    return {"s": min(took)}


CHILDREN = {"loop": loop, "first_batch": first_batch}


class Bench:
    def __init__(self, cluster: Any, arguments: argparse.Namespace) -> None:
        self.cluster, self.repeats, self.objects = cluster, arguments.repeats, arguments.objects
        self.directory = tempfile.mkdtemp(prefix="aiscache-bench-", dir="/dev/shm")
        self.results: dict[str, Any] = {}
        generated = cluster.generate(BUCKET, self.objects, (20_000, 180_000), seed=1)
        self.total = sum(map(generated.size, generated))
        self.steps = -(-self.objects // BATCH)

    def run(self, child: str, *, fresh: bool = True, **options: Any) -> Result:
        path = os.path.join(self.directory, "cache")
        if fresh:
            shutil.rmtree(path, ignore_errors=True)
        arguments = json.dumps([child, self.cluster.endpoint, path, options])
        done = subprocess.run(
            [sys.executable, __file__, "--child", arguments], stdout=subprocess.PIPE, text=True, timeout=600, check=True
        )
        result: Result = json.loads(done.stdout.splitlines()[-1])
        return result

    def tell(self, title: str, rows: list[Result]) -> None:
        cells = []
        for name in rows[0]:
            values = [row[name] for row in rows]
            cells.append(f"{name} {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        print(f"  {title:<34} {'  '.join(cells)}", flush=True)
        self.results[title] = rows

    def compare(self, title: str, *, capacity: int, epochs: int, length_s: float) -> None:
        """Print the time of a loop beside what it is bounded by."""
        alone, loops = [], {"sleep": [], "busy": []}  # type: ignore[var-annotated]
        for _ in range(self.repeats):
            fetch = self.run("loop", step="sleep", length_s=0, capacity=capacity, epochs=epochs)
            alone.append(fetch)
            bound = max(self.steps * length_s, fetch["s"])
            for kind, rows in loops.items():
                row = self.run("loop", step=kind, length_s=length_s, capacity=capacity, epochs=epochs)
                rows.append({"s": row.pop("s"), **row})
                rows[-1]["x bound"] = rows[-1]["s"] / bound
        print(f"\n{title}: {self.steps} steps of {1e3 * length_s:.0f} ms = {self.steps * length_s:.2f} s")
        self.tell(f"{title}, fetching alone", alone)
        for kind, rows in loops.items():
            self.tell(f"{title}, {kind}", rows)


def measure_cold(bench: Bench) -> None:
    for delay_s in (0.0, 0.005, 0.02):
        bench.cluster.set_delay(delay_s)
        for length_s in (0.02, 0.06):
            title = f"cold, delay {1e3 * delay_s:.0f} ms, step {1e3 * length_s:.0f} ms"
            bench.compare(title, capacity=1 << 40, epochs=1, length_s=length_s)
    bench.cluster.set_delay(0)


def measure_quarter(bench: Bench) -> None:
    for delay_s in (0.0, 0.005, 0.02):
        bench.cluster.set_delay(delay_s)
        title = f"capacity 25 %, epoch 3, delay {1e3 * delay_s:.0f} ms"
        bench.compare(title, capacity=bench.total // 4, epochs=3, length_s=0.04)
    bench.cluster.set_delay(0)


def measure_first(bench: Bench) -> None:
    bench.run("loop", step="sleep", length_s=0, capacity=1 << 40, epochs=1)
    print("\nTime to the first batch, spawn, 2 workers")
    rows: dict[str, list[Result]] = {"torch, list": [], "torch, aiscache": [], "aiscache.DataLoader": []}
    for _ in range(bench.repeats):
        rows["torch, list"].append(bench.run("first_batch", fresh=False, capacity=1000, listed=True))
        for title, kind in (("torch, aiscache", "torch"), ("aiscache.DataLoader", "ours")):
            rows[title].append(bench.run("first_batch", fresh=False, kind=kind, listed=False))
    for title, found in rows.items():
        bench.tell(title, found)


MEASUREMENTS = {"cold": measure_cold, "quarter": measure_quarter, "first": measure_first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--objects", type=int, default=4000)
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if arguments.child:
        child, endpoint, path, options = json.loads(arguments.child)
        print(json.dumps(CHILDREN[child](endpoint, path, **options)))
        return
    from aiscache.devserver import DevCluster

    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {arguments.objects} objects of 20 to 180 kB")
    with DevCluster(targets=arguments.targets) as cluster:
        bench = Bench(cluster, arguments)
        try:
            for name in arguments.only:
                MEASUREMENTS[name](bench)
        finally:
            shutil.rmtree(bench.directory, ignore_errors=True)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(bench.results, indent=1))


if __name__ == "__main__":
    main()
