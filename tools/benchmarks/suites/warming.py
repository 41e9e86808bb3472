"""`aiscache warm` beside the pool of prefetchers that it drives: what its checks and its telling cost."""

from __future__ import annotations

from benchmarks.bench import Bench, Row
from benchmarks.workloads import Workload


def warming(bench: Bench) -> None:
    """An empty cache is filled, by processes with nothing else to do."""
    for workload in (Workload.SMALL, Workload.EVEN):
        data = bench.data(workload)
        rows = [
            Row("the bare pool", "warming.pool", directory="pool", fresh=True),
            Row("`aiscache warm`", "warming.command", directory="warm", fresh=True),
        ]
        title = f"Warming {data.count:,} objects of {data.mean_bytes:,} bytes"
        bench.compare(title, rows, data, figure="fetching objects/s")
