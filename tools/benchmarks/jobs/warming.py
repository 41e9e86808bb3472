"""Filling a cache ahead of any reader: the command line, and the bare pool that it drives."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import psutil
from aistore.sdk import Client

from aiscache import Cache
from aiscache.manifest import Listing, ManifestStore
from aiscache.origin import Origin
from aiscache.prefetch import Job, Prefetcher
from aiscache.prefetch.job import default_connections, default_processes
from benchmarks.contenders import Place
from benchmarks.tables import Figures

_CAPACITY = "8GB"
_LOOKAHEAD_BYTES = 512_000_000


def pool(place: Place) -> Figures:
    """List a bucket, and have a pool fetch all of it. The rate is that from the pool's start to the last object."""
    client = Client(place.endpoint)
    with Cache(place.directory, capacity=_CAPACITY) as cache:
        store = cache.store()
        assert store is not None
        listing = Listing(client.bucket(place.bucket))
        manifest = ManifestStore(str(store.directory.manifests)).load_or_build(listing.identity, listing.build)
        origin = Origin.from_client(client)
        processes = default_processes()
        connections = default_connections(processes)
        job = Job(cache, (manifest,), {origin.uuid: origin}, processes, connections, _LOOKAHEAD_BYTES)
        prefetcher = Prefetcher(job)
        began = time.perf_counter()
        assert prefetcher.begin().publish(np.arange(len(manifest)))
        while store.upkeep.count() < len(manifest):
            time.sleep(0.005)
        took_s = time.perf_counter() - began
        prefetcher.close()
    process_s = time.time() - psutil.Process().create_time()
    return {"fetching objects/s": len(manifest) / took_s, "process objects/s": len(manifest) / process_s}


def command(place: Place) -> Figures:
    """Run `aiscache warm` on a bucket, and again when all is there."""
    program = [sys.executable, "-m", "aiscache", "warm", f"ais://{place.bucket}", "--endpoint", place.endpoint]
    program += ["--cache", place.directory, "--capacity", _CAPACITY, "--json"]
    began = time.perf_counter()
    told = json.loads(subprocess.run(program, stdout=subprocess.PIPE, check=True).stdout)
    process_s = time.perf_counter() - began
    began = time.perf_counter()
    subprocess.run(program, stdout=subprocess.DEVNULL, check=True)
    return {
        "fetching objects/s": told["fetched_objects"] / told["fetch_s"],
        "process objects/s": told["fetched_objects"] / process_s,
        "second run s": time.perf_counter() - began,
    }
