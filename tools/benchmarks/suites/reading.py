"""Epochs and single reads, cold and warm, beside everybody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.bench import Bench, Row
from benchmarks.contenders import Kind
from benchmarks.workloads import Data, Workload

_PEERS = ("files", "litdata-raw", "file-per-object", "lmdb", "diskcache", "msc", "litdata", "mosaic")


def _rows(bench: Bench, job: str, names: tuple[str, ...], **options: object) -> list[Row]:
    """Return a row for each contender, peers with a directory in common."""
    return bench.available(
        [
            Row(
                bench.contenders[name].label,
                job,
                name,
                directory="cache" if bench.contenders[name].kind is Kind.OURS else "peers",
                options=dict(options),
            )
            for name in names
        ]
    )


def single(bench: Bench) -> None:
    """Reads by index in one process."""
    for workload in (Workload.EVEN, Workload.SMALL):
        data = bench.data(workload)
        rows = _rows(bench, "reading.single", ("files", "lmdb", "diskcache", "msc", "bytes", "views"))
        bench.fill(rows, data)
        floor = Row("bytes(memoryview), the floor", "reading.copying", options={"size": data.mean_bytes})
        title = f"dataset[i], warm, {data.mean_bytes:,} bytes, microseconds"
        bench.compare(title, [floor, *rows], data, figure="us p50")
        batches = _rows(bench, "reading.batches", ("files", "lmdb", "bytes", "views"))
        title = f"__getitems__ of 64, warm, {data.mean_bytes:,} bytes, microseconds per sample"
        bench.compare(title, batches, data, figure="us p50")


def warm(bench: Bench) -> None:
    """Epochs through torch's loader, everything cached."""
    data = bench.data(Workload.OBJECTS)
    for workers, names in ((2, ("aistore-map", *_PEERS, "bytes", "views")), (1, _MAIN), (0, _MAIN)):
        rows = _rows(bench, "reading.epoch", names, workers=workers, epochs=2)
        bench.fill([row for row in rows if row.contender != "aistore-map"], data)
        title = f"Warm epoch, torch's DataLoader, {workers} workers, batch 64, {_size(data)}"
        _epochs(bench, title, rows, data, picture="warm-epoch" if workers == 2 else "")


_MAIN = ("files", "lmdb", "bytes", "views")


_FLOORS = [
    Row("libcurl alone, 2 x 16 GETs at a time, bytes thrown away", "floor.curl"),
    Row("libcurl alone, 2 x 2 Get-Batch of 64 at a time, thrown away", "floor.batch"),
]


def cold(bench: Bench) -> None:
    """The first epoch, with an empty cache."""
    data = bench.data(Workload.OBJECTS)
    title = f"Cold epoch, torch's DataLoader, 2 workers, batch 64, {_size(data)}"
    _cold(bench, title, data, _FLOORS, picture="cold-epoch")


def _cold(bench: Bench, title: str, data: Data, floors: list[Row], **told: Any) -> None:
    """Compare first epochs; a checksum would be another epoch, so that is done afterwards."""
    names = ("aistore-map", "aistore-batch", "file-per-object", "bytes", "views")
    rows = [replace(row, fresh=True) for row in _rows(bench, "reading.epoch", names, check=False)]
    bench.compare(title, rows + floors, data, figure="samples/s", **told)
    bench.verify(rows, data)


def small(bench: Bench) -> None:
    """Many small objects."""
    data = bench.data(Workload.SMALL)
    _cold(bench, f"Cold epoch, 2 workers, {_size(data)}", data, _FLOORS)
    rows = _rows(bench, "reading.epoch", (*_PEERS, "bytes", "views"), epochs=2)
    bench.fill(rows, data)
    _epochs(bench, f"Warm epoch, 2 workers, {_size(data)}", rows, data)


def large(bench: Bench) -> None:
    """A few large objects."""
    data = bench.data(Workload.LARGE)
    _cold(bench, f"Cold epoch, 2 workers, {_size(data)}", data, [])
    rows = _rows(bench, "reading.epoch", ("files", "bytes", "views"), epochs=2)
    bench.fill(rows, data)
    _epochs(bench, f"Warm epoch, 2 workers, {_size(data)}", rows, data)


def shards(bench: Bench) -> None:
    """WebDataset shards."""
    data = bench.data(Workload.SHARDS)
    names = ("aistore-shards", "webdataset", "shard-reader-bytes", "shard-reader-views")
    rows = _rows(bench, "reading.epoch", (*names, "shard-dataset-bytes", "shard-dataset-views"), epochs=2)
    bench.fill([row for row in rows if row.contender != "aistore-shards"], data)
    title = f"Warm epoch of shards, 2 workers, {data.count} shards of 100 samples of 100 KiB"
    _epochs(bench, title, rows, data, picture="warm-shards")


def _epochs(bench: Bench, title: str, rows: list[Row], data: Data, **told: Any) -> None:
    """Compare epochs with the best reader of the plain objects that is not ours."""
    base = [row.label for row in rows if bench.contenders[row.contender].kind is Kind.PLAIN]
    bench.compare(title, rows, data, figure="samples/s", base=base, **told)


def _size(data: Data) -> str:
    return f"{data.count:,} objects of {data.mean_bytes / 1000:,.0f} kB on average"
