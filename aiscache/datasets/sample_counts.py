"""How many samples each shard has: from the index of members, else from what the cluster lists of its archives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aiscache.datasets.shard_index import sample_name
from aiscache.datasets.split import Order
from aiscache.manifest import Manifest
from aiscache.origin import Origin
from aiscache.origin.control import request_client, translate


def listed_counts(
    manifest: Manifest, *, origins: Mapping[str, Origin], progress: Callable[[int], Any] = lambda shards: None
) -> Order:
    """Return the number of samples per row as the cluster lists its archives; 0 where it lists no members.

    One request per 10,000 members, no data. The cluster lists members of .tar, .tgz, .tar.gz and .zip.
    """
    counts = np.zeros(len(manifest), np.int64)
    for number, source in enumerate(manifest.sources):
        rows = np.flatnonzero(manifest.source_indices == number).tolist()
        found = _listed(source, [manifest.name(row) for row in rows], origin=origins[source.cluster], progress=progress)
        counts[rows] = [len(found[manifest.name(row)]) for row in rows]
    return counts


def _listed(
    source: Any, names: list[str], *, origin: Origin, progress: Callable[[int], Any]
) -> dict[str, set[tuple[str, str]]]:
    """Return the samples of each shard, from a listing in which the members of a shard follow it."""
    from aistore.sdk import ListObjectFlag
    from aistore.sdk.bucket import Bucket

    from aiscache.datasets.sdk_objects import sdk_namespace

    samples: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    bucket = Bucket(source.bucket, request_client(origin.settings), source.provider, sdk_namespace(source.namespace))
    prefix, shard = _common_start(names), ""
    try:
        for entry in bucket.list_objects_iter(prefix=prefix, props="name", flags=[ListObjectFlag.ARCH_DIR]):
            if entry.name in samples:
                shard = entry.name
                progress(1)
            elif shard and entry.name.startswith(f"{shard}/"):
                folder, basename, extension = sample_name(entry.name[len(shard) + 1 :])
                if extension:
                    samples[shard].add((folder, basename))
    except Exception as error:
        raise translate(error, what=f"bucket {source.provider}://{source.bucket}", endpoint=origin.endpoint) from error
    return samples


def _common_start(names: list[str]) -> str:
    """Return what all names begin with: what the first and the last in order have in common."""
    first, last = min(names), max(names)
    same = (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1])
    return first[: next(same, min(len(first), len(last)))]
