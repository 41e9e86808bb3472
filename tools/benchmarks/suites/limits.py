"""Sharing and limits: two jobs at once, and a cache that has room for half."""

from __future__ import annotations

from benchmarks.bench import Bench, Row, check
from benchmarks.tables import Figures
from benchmarks.workloads import Data, Workload


def jobs(bench: Bench) -> None:
    """Two jobs of two workers at once, cold, each with a shuffle of its own; then the second epoch of one."""
    data = bench.data(Workload.OBJECTS)
    runs: dict[str, list[Figures]] = {}
    for _ in range(bench.repeats):
        both = [
            Row(f"job {seed}", "reading.told_epoch", "bytes", fresh=seed == 1, options={"seed": seed})
            for seed in (1, 2)
        ]
        runs.setdefault("two jobs at once, cold", []).append(_together(bench, both, data))
        again = [Row("second epoch", "reading.told_epoch", "bytes", options={"seed": 3})]
        runs.setdefault("one job, second epoch", []).append(_together(bench, again, data))
    bench.table("Jobs of 2 workers each that share a cache", runs)


def _together(bench: Bench, rows: list[Row], data: Data) -> Figures:
    """Start all; once their datasets are made, let them go at the same time; return what they did together."""
    started = []
    for row in rows:
        process = bench.start(row, data)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started.append(process)
    if bench.cluster is not None:
        bench.cluster.reset_requests()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [bench.finish(process, row) for process, row in zip(started, rows, strict=True)]
    for row, each in zip(rows, found, strict=True):
        check(row, each, data)
    figures = {"samples/s, all": sum(each["samples/s"] for each in found)}
    if bench.cluster is not None:
        requests = bench.cluster.requests()
        figures["GETs/object"] = requests["GET"] / data.count
        figures["requests of any kind"] = float(sum(n for kind, n in requests.items() if kind != "BYTES"))
    return figures


def half(bench: Bench) -> None:
    """Three epochs with room for half of the data."""
    data = bench.data(Workload.OBJECTS)
    row = Row("capacity 50 %", "reading.half", "bytes", fresh=True, options={"capacity": data.total_bytes // 2})
    bench.compare("Room for half of the data, 2 workers, shuffled", [row], data)
