"""How reading scales: with readers, with entries of the index, with segments."""

from __future__ import annotations

from benchmarks.bench import Bench, Figures, Row
from benchmarks.workloads import Workload


def scaling(bench: Bench) -> None:
    """Curves, as tables; with `--plots`, as pictures too."""
    data = bench.data(Workload.EVEN)
    bench.fill([Row("", "", "views")], data)
    readers = [Row(f"{count}", "scaling.readers", "views", options={"processes": count}) for count in (1, 2, 4, 8)]
    curves = {
        "Readers: processes that read views of 100 KiB at random": bench.compare(
            "Readers: processes that read views of 100 KiB at random", readers, data
        )
    }
    entries = [10**4, 10**5, 10**6] + ([10**7] if bench.scale >= 1 else [])
    rows = [Row(f"{count:,}", "scaling.entries", fresh=True, options={"entries": count}) for count in entries]
    title = "Entries in the index"
    curves[title] = bench.compare(title, rows, data)
    counts = [10, 100, 1000] + ([10**4] if bench.scale >= 1 else [])
    rows = [Row(f"{count:,}", "scaling.segments", fresh=True, options={"segments": count}) for count in counts]
    title = "Segments"
    curves[title] = bench.compare(title, rows, data)
    if bench.plots:
        _plot(curves, bench.plots)


def _plot(curves: dict[str, dict[str, list[Figures]]], directory: str) -> None:
    """Draw each curve, one picture a figure."""
    import os
    import statistics

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    os.makedirs(directory, exist_ok=True)
    for title, runs in curves.items():
        figure = next(iter(next(iter(runs.values()))[0]))
        places = [int(label.replace(",", "")) for label in runs]
        values = [statistics.median(figures[figure] for figures in found) for found in runs.values()]
        picture, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
        axes.plot(places, values, "o-")
        axes.set(xscale="log", xlabel=title, ylabel=figure, ylim=(0, None))
        picture.savefig(os.path.join(directory, title.split(":")[0].split()[0].lower() + ".svg"))
