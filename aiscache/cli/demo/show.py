"""The course of the demo: a cluster, a cache, the work through it, the same work without it."""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from typing import Any

from aiscache.cache import Cache
from aiscache.cli.demo import report
from aiscache.cli.demo.measure import EpochResult, run_epochs
from aiscache.cli.demo.scratch import scratch_directory
from aiscache.cli.demo.training import warm_up
from aiscache.cli.progress import Progress
from aiscache.devserver import DevCluster
from aiscache.settings import format_size

_BUCKET = "demo"
_TARGETS = 3
_OURS, _THEIRS = "aiscache", "aistore.pytorch"


class Show:
    """One run of the demo with the command's arguments."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._progress = Progress()
        self._results: dict[str, list[EpochResult]] = {}

    def run(self) -> int:
        """Do it all; returns the exit code."""
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # the user chose --workers
        arguments = self._arguments
        began = time.monotonic()
        theirs = None if arguments.no_compare else _aistore_pytorch()
        capacity = _capacity_bytes(arguments.objects * arguments.size)
        with (
            scratch_directory(capacity) as path,
            Cache(path, capacity=capacity) as cache,
            DevCluster(_TARGETS) as cluster,
        ):
            cluster.generate(_BUCKET, arguments.objects, arguments.size, seed=1)
            self._say(self._introduction(cache))
            warm_up(object_bytes=arguments.size, batch_size=arguments.batch_size)
            self._measure(_OURS, _our_dataset(cluster, cache), cluster=cluster, cache=cache)
            if theirs is not None:
                self._measure(_THEIRS, theirs.AISMapDataset(_bucket(cluster)), cluster=cluster, cache=None)
        self._conclude(time.monotonic() - began)
        return 0

    def _introduction(self, cache: Cache) -> str:
        store = cache.store()
        where = "in shared memory" if store is not None and store.directory.in_memory else "on disk"
        total = format_size(self._arguments.objects * self._arguments.size)
        return (
            f"{self._arguments.objects:,} objects, {total}, on a cluster of {_TARGETS} targets on this machine\n"
            f"torch DataLoader: {self._arguments.workers} workers, batches of {self._arguments.batch_size}, shuffled; "
            f"cache {where}"
        )

    def _measure(self, name: str, dataset: Any, *, cluster: DevCluster, cache: Cache | None) -> None:
        arguments = self._arguments
        self._say(f"\n{name}.AISMapDataset\n{report.header()}")
        results = self._results[name] = []
        total = arguments.objects

        def on_progress(epoch: int, samples: int) -> None:
            self._progress.show(f"{name}: epoch {epoch} of {arguments.epochs}, {samples:,} of {total:,} samples")

        for result in run_epochs(
            dataset,
            cluster=cluster,
            cache=cache,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            object_bytes=arguments.size,
            on_progress=on_progress,
        ):
            results.append(result)
            self._say(report.row(result, cached=cache is not None))

    def _conclude(self, seconds: float) -> None:
        arguments = self._arguments
        if arguments.json:
            settings = {
                name: getattr(arguments, name) for name in ("objects", "size", "epochs", "batch_size", "workers")
            }
            print(json.dumps(report.as_json(self._results, {**settings, "seconds": seconds}), indent=2))
            return
        if _THEIRS in self._results:
            ours, theirs = self._results[_OURS], self._results[_THEIRS]
            self._say("\n" + "\n".join(report.side_by_side(ours, theirs)))
            self._say("\n" + report.summary(ours, theirs))
        elif not arguments.no_compare:
            self._say("\naistore.pytorch is not installed, so there is nothing to compare with.")

    def _say(self, text: str) -> None:
        self._progress.clear()
        if not self._arguments.json:
            print(text, flush=True)


def _capacity_bytes(data_bytes: int) -> int:
    """Return room for all of the data, with what records, segments and the index take."""
    return data_bytes + data_bytes // 8 + (64 << 20)


def _bucket(cluster: DevCluster) -> Any:
    return cluster.client().bucket(_BUCKET)


def _our_dataset(cluster: DevCluster, cache: Cache) -> Any:
    from aiscache import AISMapDataset

    return AISMapDataset(_bucket(cluster), cache=cache)


def _aistore_pytorch() -> Any:
    """Return the module, None if it is not installed; importing it now keeps its cost out of the measurement."""
    try:
        return importlib.import_module("aistore.pytorch")
    except ImportError:
        return None
