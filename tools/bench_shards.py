#!/usr/bin/env python3
"""Measures warm epochs of WebDataset shards: aiscache beside aistore.pytorch and webdataset with its cache_dir.

    .venv/bin/python tools/bench_shards.py                       # 3 repeats
    .venv/bin/python tools/bench_shards.py --shards 10 --repeats 1

Shards of 100 samples of 100 KiB on the dev server, torch's DataLoader with 2 persistent workers and batches of 64: the
second epoch of each process. Each run is a process of its own; contenders take turns. Printed are median, minimum and
maximum of samples/s, and the ratio of the medians to the first contender; every contender must see all bytes.
webdataset needs curl and `pip install webdataset`.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any

BUCKET = "shards"
SAMPLES, SAMPLE_BYTES = 100, 102_400
EPOCHS = 2


def aiscache(endpoint: str, directory: str, content: str = "bytes", kind: str = "AISShardReader") -> Any:
    import aistore.sdk

    import aiscache

    cache = aiscache.Cache(directory, capacity="8GB")
    return getattr(aiscache, kind)(aistore.sdk.Client(endpoint).bucket(BUCKET), cache=cache, content=content)


def aistore_pytorch(endpoint: str, directory: str) -> Any:
    from aistore.pytorch import AISShardReader
    from aistore.sdk import Client

    return AISShardReader(Client(endpoint).bucket(BUCKET))


def webdataset(endpoint: str, directory: str) -> Any:
    import webdataset as wds
    from aistore.sdk import Client

    names = sorted(entry.name for entry in Client(endpoint).bucket(BUCKET).list_all_objects())
    urls = [f"pipe:curl -sfL {endpoint}/v1/objects/{BUCKET}/{name}" for name in names]
    os.makedirs(directory + "-wds", exist_ok=True)
    dataset = wds.WebDataset(urls, cache_dir=directory + "-wds", shardshuffle=False)
    return dataset.to_tuple("__key__", "jpg").map(lambda sample: (sample[0], {"jpg": sample[1]}))


CONTENDERS = {
    "aistore.pytorch AISShardReader": ("aistore_pytorch", {}),
    "webdataset with cache_dir": ("webdataset", {}),
    "aiscache AISShardReader, bytes": ("aiscache", {}),
    "aiscache AISShardReader, views": ("aiscache", {"content": "view"}),
    "aiscache AISShardDataset, bytes": ("aiscache", {"kind": "AISShardDataset"}),
    "aiscache AISShardDataset, views": ("aiscache", {"kind": "AISShardDataset", "content": "view"}),
}


def as_list(batch: list[Any]) -> list[Any]:
    return batch


def epoch(dataset: Any) -> dict[str, float]:
    from torch.utils.data import DataLoader, IterableDataset

    order: dict[str, Any] = {} if isinstance(dataset, IterableDataset) else {"shuffle": True}
    loader: Any = DataLoader(
        dataset, batch_size=64, num_workers=2, collate_fn=as_list, persistent_workers=True, **order
    )
    for _ in range(EPOCHS):
        began, count, size = time.perf_counter(), 0, 0
        for batch in loader:
            count += len(batch)
            size += sum(len(contents["jpg"]) for _, contents in batch)
        result = {"samples/s": count / (time.perf_counter() - began), "bytes": size}
    return result


def run(child: str, *arguments: Any) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", child, "--arguments", json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def shard(number: int) -> bytes:
    file, chance = io.BytesIO(), random.Random(number)
    with tarfile.open(fileobj=file, mode="w") as tar:
        for sample in range(SAMPLES):
            info = tarfile.TarInfo(f"{number:04}{sample:04}.jpg")
            info.size = SAMPLE_BYTES
            tar.addfile(info, io.BytesIO(chance.randbytes(info.size)))
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child")
    parser.add_argument("--arguments", type=json.loads)
    options = parser.parse_args()
    if options.child:
        endpoint, directory, more = options.arguments
        print(json.dumps(epoch(globals()[options.child](endpoint, directory, **more))))
        return
    from aiscache.devserver import DevCluster

    directory = tempfile.mkdtemp(prefix="aiscache-bench-", dir="/dev/shm")
    contenders = dict(CONTENDERS)
    if not (importlib.util.find_spec("webdataset") and shutil.which("curl")):
        del contenders["webdataset with cache_dir"]
    rates: dict[str, list[float]] = {label: [] for label in contenders}
    try:
        with DevCluster(targets=1) as cluster:
            cluster.put_many(BUCKET, ((f"{number:04}.tar", shard(number)) for number in range(options.shards)))
            for repeat in range(options.repeats + 1):  # the first fills the caches
                for label, (child, more) in contenders.items():
                    result = run(child, cluster.endpoint, os.path.join(directory, "cache"), more)
                    if result["bytes"] != options.shards * SAMPLES * SAMPLE_BYTES:
                        raise SystemExit(f"{label} saw {result['bytes']:,} bytes")
                    if repeat:
                        rates[label].append(result["samples/s"])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    base = statistics.median(next(iter(rates.values())))
    for label, found in rates.items():
        middle = statistics.median(found)
        print(f"  {label:<34} {middle:,.0f} samples/s ({min(found):,.0f} to {max(found):,.0f})   x{middle / base:.2f}")


if __name__ == "__main__":
    main()
