"""What is missing in the cache, and whether it fits."""

from __future__ import annotations

import numpy as np

from aiscache.keys import pack_identity
from aiscache.prefetch.job import Job, Rows
from aiscache.store import Store
from aiscache.store.record import record_span
from aiscache.warm.outcome import Need

_BLOCK = 8192  # rows looked up in one transaction of the index
_SAMPLE = 256  # rows of whose names the size of a record's head is learned
_INDEX_BYTES = 128  # what the index grows by for an object: 56 bytes, in pages that are half full at worst
_ROUNDING_BYTES = 32  # what a payload is padded by, on average


def without_repeats(job: Job, rows: Rows) -> Rows:
    """Return the rows, in their order, with each object once: sources may overlap."""
    if not len(rows):
        return rows
    keys = np.concatenate([manifest.keys.view("<u8")[:, 0] for manifest in job.manifests])[rows]
    first = np.unique(keys, return_index=True)[1]
    return rows if len(first) == len(rows) else rows[np.sort(first)]


def missing_rows(job: Job, store: Store, rows: Rows) -> Rows:
    """Return those of the rows whose object is not in the cache; 2 us each, one transaction for thousands."""
    absent = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        found = store.segments_of(*job.identities(block))
        absent.append(block[[segment is None for segment in found]])
    return np.concatenate(absent) if absent else rows


def payload_bytes(job: Job, rows: Rows) -> int:
    """Return the sizes of rows, as the listing has them; those that are not known count nothing."""
    sizes = np.concatenate([manifest.sizes for manifest in job.manifests])[rows]
    return int(np.maximum(sizes, 0).sum())


def need_of(job: Job, store: Store, *, rows: Rows, missing: Rows) -> Need:
    """Return what is needed and what there is; what could be evicted is counted only if it is needed."""
    size, absent = payload_bytes(job, rows), payload_bytes(job, missing)
    needed = absent + len(missing) * (_head_bytes(job, missing) + _INDEX_BYTES)
    free = store.eviction.free_bytes()
    return Need(
        objects=len(rows),
        bytes=size,
        present_objects=len(rows) - len(missing),
        present_bytes=size - absent,
        needed_bytes=needed,
        free_bytes=free,
        evictable_bytes=store.eviction.evictable_bytes(needed - free) if needed > free else 0,
    )


def _head_bytes(job: Job, rows: Rows) -> int:
    """Return what a record takes besides its payload, learned from some rows."""
    if not len(rows):
        return 0
    some = rows[:: max(1, len(rows) // _SAMPLE)].tolist()
    heads = [record_span(pack_identity(job.wanted(row).ref), 0)[0] for row in some]
    return sum(heads) // len(heads) + _ROUNDING_BYTES
