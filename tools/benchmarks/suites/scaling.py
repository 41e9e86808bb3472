"""How reading scales: with readers, with entries of the index, with segments, with bytes."""

from __future__ import annotations

import os
import shutil

from benchmarks.bench import Bench, Row
from benchmarks.workloads import Workload


def scaling(bench: Bench) -> None:
    """Curves, as tables; with `--plots`, as pictures too."""
    data = bench.data(Workload.EVEN)
    bench.fill([Row("", "", "views")], data)
    rows = [Row(str(n), "scaling.readers", "views", options={"processes": n}) for n in range(1, 9)]
    title = "Reads of views by so many processes"
    bench.compare(title, rows, data, figure="reads/s", picture="scaling-readers", axis="processes")
    most = 7 if bench.scale >= 1 else 5
    entries = [10**power for power in range(4, most + 1)]
    _grow(bench, "Reads from an index of so many entries", "entries", entries)
    segments = [10**power for power in range(1, most - 2)]
    _grow(bench, "Reads from so many segments", "segments", segments)
    sizes = [int(mib * bench.scale) for mib in (1 << 10, 1 << 12, 1 << 14)]
    with bench.on_disk() as directory:
        free_mib = shutil.disk_usage(directory).free >> 20
        fitting = [mib for mib in sizes if mib < free_mib // 2]
        _grow(bench, "Reads of all bytes from a cache of so many MiB on disk", "mib", fitting, where=directory)


def _grow(bench: Bench, title: str, what: str, counts: list[int], *, where: str = "") -> None:
    """Measure caches of different sizes, each filled once for all repeats, on tmpfs if nothing else is told."""
    rows = [
        Row(f"{count:,}", f"growing.{what}", "", os.path.join(where, f"{what}-{count}"), options={"count": count})
        for count in counts
    ]
    told = {"figure": "us per get, p50", "picture": f"scaling-{what}", "axis": what}
    bench.compare(title, rows, bench.data(Workload.EVEN), **told)
