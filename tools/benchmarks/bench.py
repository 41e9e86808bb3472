"""`Bench`: a cluster with data, directories for what contenders keep, and jobs in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil

from benchmarks.contenders import Kind, Place, contenders
from benchmarks.tables import Figures, Table
from benchmarks.workloads import Data, Workload


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

    `scale` makes workloads smaller; `disk` is a directory on a disk, for caches larger than memory. `tables` are those
    of the suites that were run.
    """

    def __init__(self, cluster: Any, *, endpoint: str, repeats: int, scale: float, disk: str) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.repeats = repeats
        self.scale = scale
        self.contenders = contenders()
        self.directory = tempfile.mkdtemp(prefix="aiscache-bench-", dir="/dev/shm")
        self._disk = disk
        self.tables: list[Table] = []
        self._data: dict[Workload, Data] = {}
        self._suite = ""
        self._filled: set[tuple[str, str]] = set()
        self._conversions_s: dict[tuple[str, str], float] = {}

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
    def suite(self, name: str) -> Iterator[None]:
        """Run a suite of that name; then remove what contenders kept, so that the next one has the memory."""
        self._suite = name
        try:
            yield
        finally:
            self._filled.clear()
            for each in os.listdir(self.directory):
                shutil.rmtree(os.path.join(self.directory, each), ignore_errors=True)

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[str]:
        """Give a directory on a disk for as long as it is needed."""
        with tempfile.TemporaryDirectory(prefix="aiscache-bench-", dir=self._disk) as directory:
            yield directory

    # ---- jobs

    def start(self, row: Row, data: Data) -> subprocess.Popen[str]:
        place = self.place(data, row.directory)
        if row.fresh:
            shutil.rmtree(place.directory, ignore_errors=True)
        module, _, job = row.job.partition(".")
        arguments = json.dumps([module, job, row.contender, asdict(place), row.options])
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.child", arguments]
        scratch = os.path.join(self.directory, "tmp")  # some leave files in it
        os.makedirs(scratch, exist_ok=True)
        environment = os.environ | {"TMPDIR": scratch}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def finish(self, process: subprocess.Popen[str], row: Row) -> Figures:
        try:
            output, _ = process.communicate(timeout=1800)
        except BaseException:
            process.kill()
            raise
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
        check(row, figures, data)
        epochs = figures.pop("epochs", 1)
        if self.cluster is not None and "samples/s" in figures:
            figures["GETs/object"] = self.cluster.requests()["GET"] / data.count / epochs
        return figures

    def server_cpu_s(self) -> float:
        """Return the CPU seconds that the dev server has used."""
        pids = [] if self.cluster is None else self.cluster.pids
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)

    def fill(self, rows: Sequence[Row], data: Data) -> None:
        """Have each contender's cache filled before it is measured, and what is in it checked."""
        for contender, directory in dict.fromkeys((row.contender, row.directory) for row in rows if row.contender):
            made, place = self.contenders[contender], self.place(data, directory).directory
            if (contender, place) in self._filled:
                continue
            if made.fill is not None:
                took_s = self.run(Row(made.label, "filling.fill", contender, directory), data)["s"]
                self._conversions_s[contender, data.bucket] = took_s
            self.run(Row(made.label, "reading.epoch", contender, directory), data)
            self._filled.add((contender, place))

    def verify(self, rows: Sequence[Row], data: Data) -> None:
        """Have each row's contender read all once more, as fresh as the row is, and see that the bytes are right."""
        for row in rows:
            self.run(replace(row, job="reading.checked", options={}), data)

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

    def compare(self, title: str, rows: Sequence[Row], data: Data, **told: Any) -> Table:
        """Run rows in turn, repeat by repeat, and print them as a table; `told` is what else `Table` is told."""
        runs: dict[str, list[Figures]] = {row.label: [] for row in rows}
        for _ in range(self.repeats):
            for row in rows:
                runs[row.label].append(self.run(row, data) | self._conversion(row, data))
        return self.table(title, runs, **told)

    def table(self, title: str, runs: dict[str, list[Figures]], **told: Any) -> Table:
        """Print figures, and keep them."""
        table = Table(self._suite, title, runs, **told)
        self.tables.append(table)
        print(f"\n**{title}**\n\n{table.markdown()}", flush=True)
        return table

    def _conversion(self, row: Row, data: Data) -> Figures:
        """Return what it took to repack the objects, for a contender that reads them so."""
        if not row.contender or self.contenders[row.contender].kind is not Kind.REPACKED:
            return {}
        return {"conversion s": self._conversions_s[row.contender, data.bucket]}


def check(row: Row, figures: Figures, data: Data) -> None:
    """Take the bytes and the checksum out of what a job told; whoever saw others than the cluster holds is out."""
    for name, expected in (("bytes", data.total_bytes), ("checksum", data.checksum)):
        if name in figures and figures.pop(name) != expected:
            raise SystemExit(f"{row.label} saw other {name} than the cluster holds")
