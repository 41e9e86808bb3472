"""Writing into shared memory: the store beside bare copies of the same bytes."""

from __future__ import annotations

from benchmarks.bench import Bench, Row
from benchmarks.workloads import Workload

_FILES = {
    "pwrite": "pwrite to a fresh file",
    "mapping": "copy into a fresh file's mapping",
    "populated": "copy into a mapping populated before",
}
_STORE = {"reader": "aiscache, as a reader puts", "pool": "aiscache, as the pool puts"}


def put(bench: Bench) -> None:
    """Writers of objects of 100 KiB, on tmpfs; the ratio is to the fastest copy."""
    objects = max(64, int(16_000 * bench.scale))
    for writers in (1, 2):
        rows = [
            Row(label, f"putting.{job}", fresh=True, options={"way": way, "objects": objects, "writers": writers})
            for job, ways in (("files", _FILES), ("store", _STORE))
            for way, label in ways.items()
        ]
        title = f"Put of {objects:,} objects of 100 KiB, {writers} writer{'s' if writers > 1 else ''}"
        bench.compare(
            title, rows, bench.data(Workload.EVEN), figure="MB/s", base=list(_FILES.values()), picture=f"put-{writers}"
        )
