"""`aiscache.DataLoader`: whether a training loop waits for data, and how soon the first batch is there.

The bound of a loop is the longer one of computing alone (the same steps behind torch's own loader over a list in
memory) and fetching alone (the same loader without a step, in a cache of its own). Beside it stands what the machine's
cores need for both: where the trainer computes, the dev server, the pool and the workers share what cores are left.
"""

from __future__ import annotations

import os
import statistics

from benchmarks.bench import Bench, Row
from benchmarks.tables import Figures
from benchmarks.workloads import BATCH, Data, Workload


def loops(bench: Bench) -> None:
    """The first epoch of a training loop, with delays at the cluster."""
    data = bench.data(Workload.OBJECTS)
    for delay_ms in (0, 5, 20):
        _bounded(bench, f"Cold epoch, {delay_ms} ms delay at each request", data, delay_ms=delay_ms, epochs=1)


def quarter(bench: Bench) -> None:
    """The third epoch with room for a quarter of the data."""
    data = bench.data(Workload.OBJECTS)
    for delay_ms in (0, 20):
        title = f"Capacity 25 %, third epoch, {delay_ms} ms delay"
        _bounded(bench, title, data, delay_ms=delay_ms, epochs=3, capacity=data.total_bytes // 4)


_COLUMNS = ["s", "compute s", "x bound", "fetched/object", "stall s", "pool PSS MB"]


def _bounded(bench: Bench, title: str, data: Data, *, delay_ms: int, epochs: int, **options: object) -> None:
    """Print loops with two lengths of step: half as long as fetching the batch takes, and twice as long."""
    if bench.cluster is None:
        print("\n(training loops need the dev server, which delays)")
        return
    bench.cluster.set_delay(delay_ms / 1000)

    def row(label: str, step: str = "sleep", length_s: float = 0.0) -> Row:
        told = {"step": step, "length_s": length_s, "epochs": epochs, **options}
        return Row(label, "prefetching.loop", "views", fresh=True, options=told)

    steps = -(-data.count // BATCH)
    fetch = row("fetching alone")
    first = bench.run(fetch, data)["s"]
    lengths = {"short": first / steps / 2, "long": first / steps * 2}
    rows, alone_rows = [], {}
    for size, length in lengths.items():
        for kind in ("sleep", "busy"):
            rows.append(row(f"{kind}, {size} steps", kind, length))
            told = {"count": data.count, "step": kind, "length_s": length, "epochs": min(epochs, 2)}
            alone_rows[rows[-1].label] = Row(f"{rows[-1].label}, alone", "prefetching.compute", options=told)
    runs: dict[str, list[Figures]] = {each.label: [] for each in [fetch, *rows]}
    computing: dict[str, list[float]] = {each.label: [] for each in rows}
    for _ in range(bench.repeats):
        for each in [fetch, *rows]:
            runs[each.label].append(bench.run(each, data))
        for label, each in alone_rows.items():
            computing[label].append(bench.run(each, data)["s"])
    bench.cluster.set_delay(0)
    alone = {name: statistics.median(figures[name] for figures in runs[fetch.label]) for name in runs[fetch.label][0]}
    cores = len(os.sched_getaffinity(0))
    for each in rows:
        steps_s = steps * float(each.options["length_s"])
        compute = statistics.median(computing[each.label])
        busy = steps_s if each.options["step"] == "busy" else 0.0
        machine = (busy + alone["CPU s"] + alone["server CPU s"] * _last(epochs)) / cores
        for figures in runs[each.label]:
            figures |= {"steps s": steps_s, "compute s": compute, "cores' s": machine}
            figures["x compute or fetch"] = figures["s"] / max(alone["s"], compute)
            figures["x bound"] = figures["s"] / max(alone["s"], compute, machine)
    bench.table(title, runs, columns=_COLUMNS)


def _last(epochs: int) -> float:
    """Return the part of the server's work that is of the last of some epochs: all, or its share of the misses."""
    return 1.0 if epochs == 1 else 0.75 / (1 + 0.75 * (epochs - 1))


def ranks(bench: Bench) -> None:
    """Eight ranks on one machine, each with its part of the data."""
    data = bench.data(Workload.OBJECTS)
    row = Row("8 ranks, DistributedSampler, cold", "ranks.ranks", "bytes", fresh=True, options={"ranks": 8})
    bench.compare("Ranks of one machine", [row], data)


def first(bench: Bench) -> None:
    """Time to the first batch."""
    data = bench.data(Workload.OBJECTS)
    kinds = {"list": "torch, a list in memory", "torch": "torch, our dataset", "ours": "aiscache.DataLoader"}
    rows = [Row(label, "prefetching.first_batch", "views", options={"kind": kind}) for kind, label in kinds.items()]
    bench.fill([Row("", "", "views")], data)
    bench.compare("Time to the first batch, warm, 2 workers, spawn", rows, data, figure="s")
