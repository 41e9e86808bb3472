"""What is paid before the first read: imports, and a dataset of a million objects."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.bench import Bench, Row
from benchmarks.tables import Figures
from benchmarks.workloads import Data, Workload

_PROGRAMS = {
    "python": "pass",
    "import aiscache": "import aiscache",
    "import aiscache, AISMapDataset (imports torch)": "from aiscache import AISMapDataset",
    "import torch": "import torch",
    "aiscache --help": "from aiscache.cli import main; main(['--help'])",
}


def startup(bench: Bench) -> None:
    """Whole processes."""
    runs: dict[str, list[Figures]] = {label: [] for label in _PROGRAMS}
    for _ in range(max(bench.repeats, 5)):
        for label, program in _PROGRAMS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
            runs[label].append({"s": time.perf_counter() - began})
    bench.table("Start-up, whole processes", runs)


def million(bench: Bench) -> None:
    """A bucket of a million objects."""
    if bench.cluster is None:
        print("\n(a million objects need the dev server, which makes them up)")
        return
    count = int(1_000_000 * bench.scale)
    bench.cluster.generate("bench-million", count, 100)
    data: Data = bench.data(Workload.SMALL)
    place = {"bucket": "bench-million"}
    rows = [
        Row("listed", "million.listed", fresh=True, options=place),
        Row("from a stored listing", "million.stored", options=place),
    ]
    bench.compare(f"A dataset of {count:,} objects", rows, data)
