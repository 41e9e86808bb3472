"""How reading scales: with readers, with entries of the index, with segments."""

from __future__ import annotations

import statistics

from benchmarks import plots
from benchmarks.bench import Bench, Row
from benchmarks.workloads import Data, Workload


def scaling(bench: Bench) -> None:
    """Curves, as tables; with `--plots`, as pictures too."""
    data = bench.data(Workload.EVEN)
    bench.fill([Row("", "", "views")], data)
    most = 7 if bench.scale >= 1 else 5
    _curve(bench, data, "Reads of views by so many processes", "reads/s", "scaling.readers", "processes", [1, 2, 4, 8])
    entries = [10**power for power in range(4, most + 1)]
    _curve(
        bench, data, "Reads from an index of so many entries", "us per get, p50", "scaling.entries", "entries", entries
    )
    segments = [10**power for power in range(1, most - 2)]
    title = "Reads from so many segments"
    _curve(bench, data, title, "us per get, p50", "scaling.segments", "segments", segments)


def _curve(bench: Bench, data: Data, title: str, figure: str, job: str, option: str, places: list[int]) -> None:
    reading = option == "processes"  # of the cache that was filled; the others fill one of their own
    rows = [
        Row(
            f"{place:,}",
            job,
            "views" if reading else "",
            directory="cache" if reading else option,
            fresh=not reading,
            options={option: place},
        )
        for place in places
    ]
    runs = bench.compare(title, rows, data)
    if bench.plots:
        middles = {label: statistics.median(figures[figure] for figures in found) for label, found in runs.items()}
        plots.curve(bench.plots, title, middles, unit=figure)
