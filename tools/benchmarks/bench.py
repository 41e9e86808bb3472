"""`Bench`: a cluster with data, directories for what contenders keep, jobs in processes of their own, and tables."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from benchmarks import plots
from benchmarks.contenders import Contender, Place, contenders
from benchmarks.workloads import Data, Workload

Figures = dict[str, float]

_SELF_CHECKS = ("bytes", "checksum")


@dataclass(frozen=True)
class Row:
    """One line of a table: a job of `benchmarks.jobs`, of a contender, in a directory that is made empty if `fresh`."""

    label: str
    job: str
    contender: str = ""
    directory: str = "cache"
    fresh: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Bench:
    """`cluster` is a dev server, or None for a real one at `endpoint`, whose requests are not counted.

    `scale` makes workloads smaller; `plots` is a directory for pictures of curves, "" for none.
    """

    def __init__(self, cluster: Any, *, endpoint: str, repeats: int, scale: float, plots: str = "") -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.repeats = repeats
        self.scale = scale
        self.plots = plots
        self.contenders = contenders()
        self.directory = tempfile.mkdtemp(prefix="aiscache-bench-", dir="/dev/shm")
        self.results: dict[str, Any] = {}
        self._data: dict[Workload, Data] = {}

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        for data in self._data.values():
            data.remove()

    def data(self, workload: Workload) -> Data:
        """Return a workload's objects, put into the cluster when first asked for."""
        if workload not in self._data:
            self._data[workload] = Data(workload, self.cluster, self.endpoint, scale=self.scale)
        return self._data[workload]

    def place(self, data: Data, directory: str) -> Place:
        """Return where a workload is, and a directory for what is kept of it."""
        return Place(self.endpoint, data.bucket, os.path.join(self.directory, data.bucket, directory))

    @contextlib.contextmanager
    def directories(self) -> Iterator[None]:
        """Remove what contenders kept, so that the next suite has the memory."""
        try:
            yield
        finally:
            for name in os.listdir(self.directory):
                shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)

    # ---- jobs

    def start(self, row: Row, data: Data) -> subprocess.Popen[str]:
        place = self.place(data, row.directory)
        if row.fresh:
            shutil.rmtree(place.directory, ignore_errors=True)
        module, _, job = row.job.partition(".")
        arguments = json.dumps([module, job, row.contender, asdict(place), row.options])
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.child", arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str], row: Row) -> Figures:
        output, _ = process.communicate(timeout=1800)
        if process.returncode:
            raise SystemExit(f"{row.label} failed with exit code {process.returncode}")
        figures: Figures = json.loads(output.splitlines()[-1])
        return figures

    def run(self, row: Row, data: Data) -> Figures:
        """Run a job; whoever saw other bytes than the cluster holds is out."""
        if self.cluster is not None:
            self.cluster.reset_requests()
        before = self.server_cpu_s()
        figures = self.finish(self.start(row, data), row)
        if "CPU s" in figures:
            figures["server CPU s"] = self.server_cpu_s() - before
        for name, expected in zip(_SELF_CHECKS, (data.total_bytes, data.checksum), strict=True):
            if name in figures and figures.pop(name) != expected:
                raise SystemExit(f"{row.label} saw other {name} than the cluster holds")
        epochs = figures.pop("epochs", 1)
        if self.cluster is not None and "samples/s" in figures:
            figures["GETs/object"] = self.cluster.requests()["GET"] / data.count / epochs
        return figures

    def server_cpu_s(self) -> float:
        """Return the CPU seconds that the dev server has used."""
        pids = [] if self.cluster is None else self.cluster.pids
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)

    def fill(self, rows: Sequence[Row], data: Data) -> None:
        """Have each contender's cache filled before it is measured."""
        for contender, directory in dict.fromkeys((row.contender, row.directory) for row in rows if row.contender):
            made = self.contenders[contender]
            if made.fill is not None:
                made.fill(self.place(data, directory))
            self.run(Row(made.label, "reading.epoch", contender, directory, options={"check": False}), data)

    def available(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows whose contenders are installed; say which are not."""
        found = []
        for row in rows:
            missing = self.contenders[row.contender].missing() if row.contender else ""
            if missing:
                print(f"\n({row.label} is left out: {missing} is not installed)")
            else:
                found.append(row)
        return found

    # ---- tables

    def compare(
        self,
        title: str,
        rows: Sequence[Row],
        data: Data,
        *,
        figure: str = "",
        base: Callable[[Contender], bool] = lambda contender: False,
    ) -> dict[str, list[Figures]]:
        """Run rows in turn, repeat by repeat, and print them as a table.

        With `figure`, the last column is the ratio of its medians to the best of the rows whose contender `base` picks,
        else to the first row.
        """
        runs: dict[str, list[Figures]] = {row.label: [] for row in rows}
        for _ in range(self.repeats):
            for row in rows:
                runs[row.label].append(self.run(row, data))
        peers = [row.label for row in rows if row.contender and base(self.contenders[row.contender])]
        self.table(title, runs, figure=figure, peers=peers)
        return runs

    def table(self, title: str, runs: dict[str, list[Figures]], *, figure: str = "", peers: Sequence[str] = ()) -> None:
        """Print figures: the median of the repeats, with the smallest and the largest."""
        self.results[title] = runs
        names = list(dict.fromkeys(name for found in runs.values() for figures in found for name in figures))
        middles = {
            label: statistics.median(figures[figure] for figures in found) for label, found in runs.items() if figure
        }
        reference = max((middles[label] for label in peers), default=next(iter(middles.values()), 1.0))
        print(f"\n**{title}**\n\n| | {' | '.join(names)} |{' ratio |' if figure else ''}")
        print(f"|---|{'---|' * (len(names) + bool(figure))}")
        for label, found in runs.items():
            cells = [_cell([figures[name] for figures in found if name in figures]) for name in names]
            ratio = f" {_number(middles[label] / reference)} |" if figure else ""
            print(f"| {label} | {' | '.join(cells)} |{ratio}", flush=True)
        if self.plots and figure == "samples/s":
            plots.bars(self.plots, title, middles, unit=figure)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
