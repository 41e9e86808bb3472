"""`warm`: list, look what is missing and whether it fits, fetch it with a pool, and see to what the pool left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from aiscache.bars import ObjectsBar
from aiscache.cache import Cache
from aiscache.counting import counting
from aiscache.errors import CacheDirectoryError, CacheFullError, ConfigError
from aiscache.manifest import Listing, Manifest, ManifestStore, Source
from aiscache.origin import BucketName, Origin
from aiscache.prefetch import Job
from aiscache.prefetch.job import Rows, default_connections, default_processes
from aiscache.settings import format_size
from aiscache.store import Store
from aiscache.store.runs import noted
from aiscache.warm.missing import missing_rows, need_of, without_repeats
from aiscache.warm.outcome import Failure, Need, Warmed
from aiscache.warm.pool import fetch_with_pool
from aiscache.warm.rest import settle_rest

_IN_FLIGHT_BYTES = 512_000_000  # requested at a time and not arrived, by all processes together


def warm(
    cache: Cache,
    sources: Any,
    prefix_map: Mapping[Any, str | Sequence[str] | None] | None = None,
    *,
    etl_name: str | None = None,
    processes: int | None = None,
    connections: int | None = None,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    partial: bool = False,
    dry_run: bool = False,
    show_progress: bool = False,
) -> Warmed:
    """Bring all objects of `sources` into the cache; see `Cache.warm`."""
    began = time.monotonic()
    _check(processes=processes, connections=connections, limit=limit, rank=rank, world_size=world_size)
    store = cache._require_store()
    listing = Listing(sources, prefix_map, etl=etl_name or "", skip_missing=True)
    with counting("listing", "objects", show=show_progress) as progress:
        manifest = _listed(listing, cache, store, dry_run=dry_run, progress=progress)
    if not manifest.path:
        raise CacheDirectoryError(
            f"the listing cannot be kept in {store.directory.manifests}, so warming is of no use; free space there"
        )
    workers = processes or default_processes()
    job = Job(
        cache=cache,
        manifests=(manifest,),
        origins=_origins(listing, manifest),
        processes=workers,
        connections=connections or default_connections(workers),
        lookahead_bytes=_IN_FLIGHT_BYTES,
        keep_only=True,
    )
    rows = without_repeats(job, np.arange(len(manifest)))[rank::world_size][:limit]
    missing = missing_rows(job, store, rows)
    need = need_of(job, store, rows=rows, missing=missing)
    absent = _absent(listing, manifest)
    if not dry_run and not partial and not need.fits:
        raise CacheFullError(_does_not_fit(need, store), need=need)
    warmed = Warmed(need=need, dry_run=dry_run, failures=tuple(absent))
    if len(missing) and not dry_run:
        size = need.missing_bytes
        bar = ObjectsBar("warm", objects=len(missing), size_bytes=size, show=show_progress)
        with bar, noted(store, kind="warm") as doing:
            warmed = _fetch(job, store, missing, warmed=warmed, bar=bar)
            doing.samples, doing.complete = warmed.fetched_objects, warmed.complete
    return replace(warmed, seconds=time.monotonic() - began)


def _listed(listing: Listing, cache: Cache, store: Store, *, dry_run: bool, progress: Callable[[int], Any]) -> Manifest:
    """Return a new listing; where the cache is offline, the stored one, of which nothing can be fetched."""
    manifests = ManifestStore(str(store.directory.manifests))
    if not cache.settings.offline:
        return manifests.load_or_build(listing.identity, partial(listing.build, progress))
    if not dry_run:
        raise ConfigError(
            "the cache is offline (offline=True, or AISCACHE_OFFLINE), so nothing can be fetched into it; dry_run=True "
            "(--dry-run) tells what is missing"
        )
    return listing.stored(manifests, cache=cache.settings.path)


def _fetch(job: Job, store: Store, missing: Rows, *, warmed: Warmed, bar: ObjectsBar) -> Warmed:
    """Fetch what is missing: with a pool, then what that left."""
    told, pool_s = fetch_with_pool(
        job, missing, progress=lambda told: bar.move(objects=told.objects, size_bytes=told.bytes)
    )
    began = time.monotonic()
    left = missing_rows(job, store, missing)
    fetched = min(told.objects, len(missing) - len(left))
    rest = settle_rest(
        job,
        store,
        left,
        no_room=told.no_room,
        progress=lambda objects, size: bar.move(objects=told.objects + objects, size_bytes=told.bytes + size),
    )
    return replace(
        warmed,
        fetched_objects=fetched + rest.fetched_objects,
        fetched_bytes=told.bytes + rest.fetched_bytes,
        came_objects=len(missing) - len(left) - fetched + rest.came,
        unfit_objects=rest.unfit,
        failures=(*warmed.failures, *rest.failures),
        fetch_s=pool_s + time.monotonic() - began,
    )


def _check(*, processes: int | None, connections: int | None, limit: int | None, rank: int, world_size: int) -> None:
    for name, value in (("processes", processes), ("connections", connections), ("limit", limit)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value!r} must be at least 1")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank!r} must be from 0 to world_size - 1 = {world_size - 1}")


def _origins(listing: Listing, manifest: Manifest) -> dict[str, Origin]:
    """Return the origin of each cluster of the manifest; a cluster may have been listed through several proxies."""
    origins = [Origin.from_client(selection.source.client) for selection in listing.selections]
    by_endpoint = {origin.endpoint: origin for origin in origins}
    return {source.cluster: by_endpoint[source.endpoint] for source in manifest.sources}


def _absent(listing: Listing, manifest: Manifest) -> list[Failure]:
    """Return the names of object groups that the cluster does not have, each as a failure."""
    failures = []
    for number, source in enumerate(manifest.sources):
        wanted = [
            name
            for selection in listing.selections
            if selection.is_group and selection.bucket is not None and _is_of(selection.bucket, source)
            for name in selection.names()
        ]
        if wanted:
            rows = np.flatnonzero(manifest.source_indices == number)
            found = {manifest.name(row) for row in rows.tolist()}
            url = f"{source.provider}://{source.namespace + '/' if source.namespace else ''}{source.bucket}"
            failures += [Failure(f"{url}/{name}", "it is not on the cluster") for name in wanted if name not in found]
    return failures


def _is_of(bucket: BucketName, source: Source) -> bool:
    return (bucket.provider, bucket.namespace, bucket.name) == (source.provider, source.namespace, source.bucket)


def _does_not_fit(need: Need, store: Store) -> str:
    capacity = sum(tier.capacity_bytes or 0 for tier in store.tiers.values())
    room = need.free_bytes + need.evictable_bytes
    return (
        f"{need.missing_objects:,} missing objects need {format_size(need.needed_bytes)}, the cache in "
        f"{store.directory.path} has room for {format_size(room)} (capacity {format_size(capacity)}, "
        f"{format_size(need.free_bytes)} free, {format_size(need.evictable_bytes)} can be evicted): it lacks "
        f"{format_size(need.needed_bytes - room)}. Give it more capacity (or its file system more space), or warm what "
        f"fits with --partial (partial=True)"
    )
