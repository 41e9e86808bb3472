#!/usr/bin/env python3
"""Measures aiscache beside what users would pick instead, on the dev server, on one machine.

    .venv/bin/python tools/bench.py                       # everything, 5 repeats
    .venv/bin/python tools/bench.py --only cold warm      # some of it
    .venv/bin/python tools/bench.py --repeats 3 --json results.json

Each measurement runs in a process of its own; contenders take turns within each repeat, so that a machine that gets
slower meanwhile slows all of them. Printed are median, minimum and maximum over the repeats, and the ratio of the
medians to the first contender. Every contender adds up the bytes it saw, and a contender that saw others than the
cluster holds is an error. CPU is that of the process and its DataLoader workers, not of the server.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers

BUCKET = "bench"
Result = dict[str, float]


# ---- contenders: what a child process does with (endpoint, directory, options); they return named figures


def bucket(endpoint: str) -> Any:
    from aistore.sdk import Client

    return Client(endpoint).bucket(BUCKET)


def ours(endpoint: str, directory: str, **options: Any) -> Any:
    from aiscache import AISMapDataset, Cache

    capacity = options.pop("capacity", "20GB")
    return AISMapDataset(bucket(endpoint), cache=Cache(directory, capacity=capacity), **options)


def theirs(endpoint: str) -> Any:
    from aistore.pytorch import AISMapDataset

    return AISMapDataset(bucket(endpoint))


def theirs_batched(endpoint: str) -> Any:
    from aistore.pytorch.batch_iter_dataset import AISBatchIterDataset

    source = bucket(endpoint)
    from aistore.sdk import Client

    return AISBatchIterDataset(source, Client(endpoint), max_batch_size=64)


def collate(batch: list[Any]) -> tuple[list[str], list[Any]]:
    return [name for name, _ in batch], [content for _, content in batch]


def loader(dataset: Any, *, seed: int = 0, workers: int = 2) -> Any:
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    iterable = isinstance(dataset, IterableDataset)
    generator = torch.Generator().manual_seed(seed)
    order = {} if iterable else {"shuffle": True, "generator": generator}
    return DataLoader(dataset, batch_size=64, num_workers=workers, collate_fn=collate, **order)  # type: ignore[arg-type]


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def epoch(dataset: Any, **options: Any) -> Result:
    """Read one epoch through torch's DataLoader."""
    began, cpu = time.perf_counter(), cpu_s()
    count = size = 0
    for names, contents in loader(dataset, **options):
        count += len(names)
        size += sum(map(len, contents))
    took = time.perf_counter() - began
    return {"samples/s": count / took, "CPU ms/sample": 1e3 * (cpu_s() - cpu) / count, "bytes": size}


def each(read: Callable[[int], Any], count: int) -> Result:
    """Read every sample by index, three times over, in random order."""
    order = random.Random(0).sample(range(count), count)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        for index in order:
            read(index)
        took.append(1e6 * (time.perf_counter() - began) / count)
    return {"us/sample": min(took)}


def cold_aiscache(endpoint: str, directory: str) -> Result:
    return epoch(ours(endpoint, directory))


def cold_map(endpoint: str, directory: str) -> Result:
    return epoch(theirs(endpoint))


def cold_batch(endpoint: str, directory: str) -> Result:
    return epoch(theirs_batched(endpoint))


def index_bytes(endpoint: str, directory: str) -> Result:
    dataset = ours(endpoint, directory)
    return each(dataset.__getitem__, len(dataset))


def index_view(endpoint: str, directory: str) -> Result:
    dataset = ours(endpoint, directory, content="view")
    return each(dataset.__getitem__, len(dataset))


def index_file(endpoint: str, directory: str) -> Result:
    dataset = peers.Files(directory)
    return each(dataset.__getitem__, len(dataset))


def warm_bytes(endpoint: str, directory: str) -> Result:
    return epoch(ours(endpoint, directory))


def warm_view(endpoint: str, directory: str) -> Result:
    return epoch(ours(endpoint, directory, content="view"))


def warm_files(endpoint: str, directory: str) -> Result:
    return epoch(peers.Files(directory))


def peer(endpoint: str, directory: str, kind: str = "") -> Result:
    return epoch(getattr(peers, kind)(bucket(endpoint), directory))


def one_job(endpoint: str, directory: str, seed: int = 0) -> Result:
    dataset = ours(endpoint, directory)
    print("ready", flush=True)
    sys.stdin.readline()
    return epoch(dataset, seed=seed)


def half(endpoint: str, directory: str, capacity: int = 0) -> Result:
    """Three epochs with room for a part of the data; the disk is looked at after every batch."""
    dataset = ours(endpoint, directory, capacity=capacity)
    figures: Result = {}
    peak = 0
    for number in range(1, 4):
        before = dataset.cache.stats()
        for names, _ in loader(dataset, seed=number):
            peak = max(peak, disk_usage(directory)) if names else peak
        figures[f"hit ratio, epoch {number}"] = (dataset.cache.stats() - before).hit_ratio
    return {**figures, "peak bytes / capacity": peak / capacity}


CHILDREN: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (
        *(cold_aiscache, cold_map, cold_batch),
        *(index_bytes, index_view, index_file),
        *(warm_bytes, warm_view, warm_files, peer),
        *(one_job, half),
    )
}


# ---- the parent: sets up what a measurement needs, runs contenders in turn, prints


def disk_usage(directory: str) -> int:
    total = 0
    for path in Path(directory).rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def start(name: str, endpoint: str, directory: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", name, "--arguments", json.dumps([endpoint, directory, options])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Result:
    output, _ = process.communicate(timeout=1200)
    if process.returncode:
        raise SystemExit(f"a contender failed with exit code {process.returncode}")
    result: Result = json.loads(output.splitlines()[-1])
    return result


def run(name: str, endpoint: str, directory: str, **options: Any) -> Result:
    return finish(start(name, endpoint, directory, **options))


class Bench:
    """A dev server with the data, and a directory in shared memory for caches and files."""

    def __init__(self, cluster: Any, arguments: argparse.Namespace) -> None:
        self.cluster = cluster
        self.repeats: int = arguments.repeats
        self.objects: int = arguments.objects
        self.sizes: list[int] = []
        self.directory = tempfile.mkdtemp(prefix="aiscache-bench-", dir="/dev/shm")
        self.results: dict[str, Any] = {}
        self.generate((20_000, 180_000))

    def generate(self, size: int | tuple[int, int]) -> None:
        generated = self.cluster.generate(BUCKET, self.objects, size, seed=1)
        self.sizes = [generated.size(name) for name in generated]
        self.generated = generated

    def fresh(self, name: str = "cache") -> str:
        path = os.path.join(self.directory, name)
        shutil.rmtree(path, ignore_errors=True)
        return path

    def write_files(self, directory: str) -> None:
        files = Path(directory, "files")
        files.mkdir(parents=True)
        for name in self.generated:
            (files / name).write_bytes(self.generated.content(name))

    def compare(
        self,
        title: str,
        figure: str,
        contenders: dict[str, str],
        *,
        directory: Callable[[str], str],
        options: Callable[[str], dict[str, Any]] = lambda label: {},
    ) -> None:
        """Run contenders in turn and print one line for each; `figure` is the one that ratios are given of."""
        runs: dict[str, list[Result]] = {label: [] for label in contenders}
        for _ in range(self.repeats):
            for label, child in contenders.items():
                self.cluster.reset_requests()
                result = run(child, self.cluster.endpoint, directory(label), **options(label))
                if "bytes" in result and result.pop("bytes") != sum(self.sizes):
                    raise SystemExit(f"{label} saw other bytes than the cluster holds")
                if "samples/s" in result:
                    result["GETs/object"] = self.cluster.requests()["GET"] / self.objects
                runs[label].append(result)
        print(f"\n{title}")
        base = statistics.median(result[figure] for result in next(iter(runs.values())))
        for label, results in runs.items():
            ratio = statistics.median(result[figure] for result in results) / base
            print(f"  {label:<34} {'  '.join(columns(results))}   x{ratio:.2f}")
        self.results[title] = runs

    def table(self, title: str, results: list[Result]) -> None:
        print(f"\n{title}")
        for line in columns(results):
            print(f"  {line}")
        self.results[title] = results


def columns(results: list[Result]) -> Iterator[str]:
    for name in results[0]:
        values = [result[name] for result in results]
        digits = 0 if min(values) >= 1000 else 1 if min(values) >= 10 else 3
        middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
        yield f"{name} {middle} ({low} to {high})"


def measure_index(bench: Bench) -> None:
    bench.generate(102_400)
    path = bench.fresh()
    run("warm_bytes", bench.cluster.endpoint, path)
    bench.write_files(path + "-files")
    places = {"file on tmpfs: open, read, close": path + "-files"}
    bench.compare(
        "Warm read of one 100 KiB object by index, one process",
        "us/sample",
        {
            "file on tmpfs: open, read, close": "index_file",
            "aiscache dataset[i], bytes": "index_bytes",
            "aiscache dataset[i], view": "index_view",
        },
        directory=lambda label: places.get(label, path),
    )
    shutil.rmtree(path + "-files")
    bench.generate((20_000, 180_000))


def measure_cold(bench: Bench) -> None:
    bench.compare(
        "Cold epoch, DataLoader, 2 workers, batch 64, objects of 20 to 180 kB",
        "samples/s",
        {
            "aistore.pytorch AISMapDataset": "cold_map",
            "aistore.pytorch AISBatchIterDataset": "cold_batch",
            "aiscache AISMapDataset": "cold_aiscache",
        },
        directory=lambda label: bench.fresh(),
    )


def measure_warm(bench: Bench) -> None:
    path = bench.fresh()
    run("warm_bytes", bench.cluster.endpoint, path)
    bench.write_files(path + "-files")
    places = {"plain files on tmpfs": path + "-files"}
    bench.compare(
        "Warm epoch, DataLoader, 2 workers, batch 64, objects of 20 to 180 kB",
        "samples/s",
        {
            "plain files on tmpfs": "warm_files",
            "aistore.pytorch AISMapDataset": "cold_map",
            "aiscache, bytes": "warm_bytes",
            "aiscache, views": "warm_view",
        },
        directory=lambda label: places.get(label, path),
    )
    shutil.rmtree(path + "-files")


def measure_peers(bench: Bench) -> None:
    path = bench.fresh()
    contenders = {"aiscache, bytes": "warm_bytes", "aiscache, views": "warm_view"}
    run("warm_bytes", bench.cluster.endpoint, path)
    kinds = ["FilePerObject", "Lmdb", "DiskCache", "MultiStorageClient"]
    installed = [kind for kind in kinds if kind not in peers.NEEDS or importlib.util.find_spec(peers.NEEDS[kind])]
    for kind in sorted(set(kinds) - set(installed)):
        print(f"\n{kind} is left out: {peers.NEEDS[kind]} is not installed")
    for kind in installed:
        run("peer", bench.cluster.endpoint, path + "-peers", kind=kind)  # fills it
    bench.compare(
        "Warm epoch of other caches, DataLoader, 2 workers, batch 64, objects of 20 to 180 kB",
        "samples/s",
        {**dict.fromkeys(installed, "peer"), **contenders},
        directory=lambda label: path + "-peers" if label in installed else path,
        options=lambda label: {"kind": label} if label in installed else {},
    )
    shutil.rmtree(path + "-peers")


def measure_jobs(bench: Bench) -> None:
    results = []
    for _ in range(bench.repeats):
        path = bench.fresh()
        jobs = [start("one_job", bench.cluster.endpoint, path, seed=seed) for seed in (1, 2)]
        for job in jobs:
            assert job.stdout is not None
            assert job.stdout.readline() == "ready\n"
        bench.cluster.reset_requests()
        for job in jobs:
            assert job.stdin is not None
            job.stdin.write("go\n")
            job.stdin.flush()
        together = [finish(job) for job in jobs]
        results.append({"GETs/object": bench.cluster.requests()["GET"] / bench.objects})
        results[-1]["samples/s, both"] = sum(result["samples/s"] for result in together)
    bench.table("Two jobs of 2 workers at once, cold, different shuffles", results)


def measure_second(bench: Bench) -> None:
    path = bench.fresh()
    results = []
    for _ in range(bench.repeats):
        run("warm_bytes", bench.cluster.endpoint, path)
        job = start("one_job", bench.cluster.endpoint, path)
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"  # the dataset is made: its listing is not part of the epoch
        bench.cluster.reset_requests()
        finish(job)
        results.append({"requests of any kind": float(sum(bench.cluster.requests().values()))})
    bench.table("Second epoch", results)


def measure_half(bench: Bench) -> None:
    capacity = sum(bench.sizes) // 2
    results = [run("half", bench.cluster.endpoint, bench.fresh(), capacity=capacity) for _ in range(bench.repeats)]
    bench.table("Capacity 50 % of the data, 2 workers, shuffled", results)


def measure_import(bench: Bench) -> None:
    commands = {
        "import aiscache (s)": "import aiscache",
        "python (s)": "pass",
        "aiscache --help (s)": "from aiscache.cli import main; main(['--help'])",
    }
    results = []
    for _ in range(max(bench.repeats, 5)):
        row = {}
        for label, program in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
            row[label] = time.perf_counter() - began
        results.append(row)
    bench.table("Start-up, whole process", results)


MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    name.removeprefix("measure_"): function for name, function in list(globals().items()) if name.startswith("measure_")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--objects", type=int, default=4000)
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        endpoint, directory, options = json.loads(arguments.arguments)
        print(json.dumps(CHILDREN[arguments.child](endpoint, directory, **options)))
        return
    from aiscache.devserver import DevCluster

    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {arguments.objects} objects")
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
