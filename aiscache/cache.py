"""`Cache`: read an object from this machine if it is here, else from the cluster, and keep it.

It is where the store (bytes by key) and the origin (a cluster) meet. A cache that cannot be used never stops a read:
the object then comes straight from the cluster, with one warning and a counter.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lmdb
import numpy as np

from aiscache.errors import AiscacheError, CacheClosedError, CacheDirectoryError, ConfigError
from aiscache.fill import Wanted, fetch_all
from aiscache.keys import ObjectRef, pack_identity
from aiscache.manifest import ManifestStore, open_manifests
from aiscache.manifest.sources import bucket_name
from aiscache.offline import not_cached
from aiscache.origin.names import BucketName
from aiscache.settings import CacheSettings, env_flag
from aiscache.stats import CacheStats
from aiscache.store import Record, Store, Swept
from aiscache.store import registry as stores
from aiscache.uninterrupted import Uninterrupted
from aiscache.view import View

if TYPE_CHECKING:
    from aiscache.warm import Warmed


class Cache:
    """A cache of objects, shared by all processes of the machine that name the same path.

    `path` names a directory on a local disk or on tmpfs; it stays until it is cleared or deleted. Without one, and
    without AISCACHE_DIR, the cache lies in shared memory and lasts as long as some process uses it. `capacity` is a
    hard limit on the bytes there, `memory` on a tier of shared memory in front of a directory on disk: bytes, or
    "200GB" (powers of 1000), "1.5GiB" (powers of 1024). The default capacity is half of what is free. `verify="read"`
    checks bytes on every read as well as when they are fetched. `offline` (by default what AISCACHE_OFFLINE says) asks
    no cluster: datasets take the listing that was stored last, and what is not here is a NotCachedError.

    Use it as a context manager or close it. It may be pickled (to its settings), forked, and used by many threads.
    Raises ConfigError for a bad value, CacheDirectoryError for a directory that cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        capacity: int | str | None = None,
        memory: int | str | None = None,
        verify: str = "fill",
        offline: bool | None = None,
    ) -> None:
        self.settings = CacheSettings.resolve(path, capacity=capacity, memory=memory, verify=verify, offline=offline)
        self._reset()
        try:
            self._open()
        except (CacheDirectoryError, OSError):
            if self.settings.path is not None:
                raise
            self._give_in()

    def _reset(self) -> None:
        self._opened: Store | None = None
        self._generation = -1
        self._closed = False

    # ---- reading

    def read(self, ref: ObjectRef) -> View:
        """Return the bytes of an object, from here or, the first time, from the cluster.

        The cluster is one that a dataset of this process reads from, or that `Origin.from_client(client)` was asked
        about. Raises OriginError (see `aiscache.errors`) if the object is not here and the cluster does not give the
        version that `ref` names, NotCachedError if it is not here and the cache is offline.
        """
        return self.read_many((ref,))[0]

    def read_many(self, refs: Sequence[ObjectRef]) -> list[View]:
        """Return the bytes of objects in their order; what is missing is fetched, 16 at a time."""
        wanted = [Wanted.of(ref) for ref in refs]
        views, _ = self.lookup([one.key for one in wanted], [one.digest for one in wanted])
        missing = {one.key: one for one, view in zip(wanted, views, strict=True) if view is None}
        if missing and self.settings.offline:
            first = next(iter(missing.values())).ref
            raise not_cached(first.url, cache=self.settings.path, missing=len(missing), of=len(refs))
        fetched = fetch_all(self.store(), list(missing.values()))
        return [fetched[one.key] if view is None else view for one, view in zip(wanted, views, strict=True)]

    def lookup(self, keys: Sequence[bytes], digests: Sequence[int]) -> tuple[list[View | None], int]:
        """Return what is here, None for what is not, and how many those are; one index transaction, no request."""
        store = self.store()
        if store is None:
            return [None] * len(keys), len(keys)
        views, misses = store.get_many(keys, digests)
        if misses:
            store.counters.add("misses", misses)
        return views, misses

    def contains(self, ref: ObjectRef) -> bool:
        """Tell whether this version of the object is here; no request, nothing is counted."""
        store = self.store()
        return store is not None and store.contains(ref.key, ref.digest)

    # ---- changing

    def put(self, ref: ObjectRef, data: bytes | bytearray | memoryview) -> bool:
        """Keep `data` as this version of the object; False if there is no room. The bytes are taken as they are."""
        if ref.size >= 0 and not ref.etl and ref.size != len(data):
            raise ConfigError(f"put of {len(data)} bytes as {ref.url}, which has {ref.size} bytes")
        store = self._require_store()
        with Uninterrupted():
            reservation = store.reserve(key=ref.key, digest=ref.digest, identity=pack_identity(ref), length=len(data))
            if reservation is None:
                return False
            reservation.fill(data)
            store.keep([reservation])
        return reservation.failure is None

    def evict(
        self,
        bucket: Any = None,
        prefix: str = "",
        force: bool = False,
        *,
        unused_for_s: float = 0.0,
        dry_run: bool = False,
    ) -> Swept:
        """Remove the objects of a bucket (name, or SDK bucket; None for all) whose names begin with `prefix`.

        What some process has mapped is left (`skipped` in the answer) unless `force`: then whoever has it mapped keeps
        its bytes until it lets go, and the space comes free only then. With `unused_for_s` only objects go whose
        segment nobody read or wrote for so many seconds. `dry_run` removes nothing, and answers what it would.
        """
        chosen = bucket if bucket is None or isinstance(bucket, str | BucketName) else bucket_name(bucket)

        def matches(records: Sequence[Record]) -> list[bool]:
            refs = [record.ref for record in records]
            return [_is_in(ref, chosen) and ref.name.startswith(prefix) for ref in refs]

        return self._require_store().upkeep.sweep(matches, force=force, unused_for_s=unused_for_s, dry_run=dry_run)

    def warm(
        self,
        ais_source_list: Any,
        prefix_map: Mapping[Any, str | Sequence[str] | None] | None = None,
        etl_name: str | None = None,
        *,
        processes: int | None = None,
        connections: int | None = None,
        limit: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        partial: bool = False,
        dry_run: bool = False,
        show_progress: bool = False,
    ) -> Warmed:
        """Bring all objects of AIS sources into the cache, with a pool of processes, in the order of their listing.

        Arguments:
            ais_source_list, prefix_map, etl_name: as for a dataset. What is missing of an object group is a failure.
            processes, connections: of the pool; by default half of the cores, at most 4, with 32 requests each (one
                alone: 64).
            limit: how many objects of the listing, from the first on.
            rank, world_size: take every `world_size`-th object from the `rank`-th on, as datasets do.
            partial: fetch what fits instead of refusing when not all does.
            dry_run: say what is missing and whether it fits, and fetch nothing.
            show_progress: a bar on stderr, if that is a terminal.

        Returns what came of each object; a failed one raises nothing. Raises CacheFullError with figures if not all
        fits, OriginError if the sources cannot be listed. What is here already costs no request but the listing's.
        """
        from aiscache.warm import warm

        return warm(
            self,
            ais_source_list,
            prefix_map,
            etl_name=etl_name,
            processes=processes,
            connections=connections,
            limit=limit,
            rank=rank,
            world_size=world_size,
            partial=partial,
            dry_run=dry_run,
            show_progress=show_progress,
        )

    def clear(self) -> Swept:
        """Remove all objects, and the stored listings that no dataset uses.

        Objects that some process has mapped go too: it keeps their bytes until it lets go of them.
        """
        store = self._require_store()
        ManifestStore(str(store.directory.manifests)).clear()
        return store.upkeep.clear()

    def verify(self, progress: Callable[[Record], None] = lambda record: None) -> list[ObjectRef]:
        """Check all bytes here against their checksums; drop those that are damaged and return which they were."""
        return [record.ref for record in self._require_store().upkeep.verify(progress)]

    def repair(self, progress: Callable[[int], None] = lambda objects: None) -> int:
        """Make the index anew from the segments; return how many objects it found.

        `progress` is called with the number of objects in each segment.
        """
        return self._require_store().upkeep.repair(progress)

    def room_for(self, size_bytes: int) -> AbstractContextManager[bool]:
        """Tell in a `with` whether a file of that size fits beside the objects; the capacity holds until it ends."""
        store = self.store()
        return nullcontext(True) if store is None else store.eviction.room_for(size_bytes)

    # ---- telling

    def stats(self, *, scope: str = "machine") -> CacheStats:
        """Return the counters of all processes that ever used the cache, or with `scope="process"` of this one."""
        store = self.store()
        if scope not in ("machine", "process"):
            raise ConfigError(f'scope={scope!r} must be "machine" or "process"')
        if store is None:
            return CacheStats()
        return store.counters.machine() if scope == "machine" else store.counters.process()

    def store(self) -> Store | None:
        """Return this process's store, None where the cache cannot be used; CacheClosedError after `close`."""
        if self._generation != stores.generation():
            try:
                self._open()
            except (AiscacheError, OSError, lmdb.Error) as error:
                if isinstance(error, CacheClosedError):
                    raise
                self._give_in()
        return self._opened

    def close(self) -> None:
        """Give up this handle; the last one of the process frees locks and mappings. Views that live stay valid."""
        with stores.lock(), Uninterrupted():
            if self._opened is not None and self._generation == stores.generation():
                stores.release(self._opened)
            self._opened, self._closed, self._generation = None, True, -1

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> CacheSettings:
        return self.settings

    def __setstate__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self._reset()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Cache {self.settings.path or 'unnamed, in shared memory'}, {state}>"

    def _open(self) -> None:
        with stores.lock():
            if self._closed:
                raise CacheClosedError(f"{self!r} is used after close()")
            if self._generation != stores.generation():
                self._opened = None
                self._opened = stores.acquire(self.settings, in_use=self._in_use)
                self._generation = stores.generation()

    def _require_store(self) -> Store:
        store = self.store()
        if store is None:
            raise CacheDirectoryError(f"{self!r} cannot be used on this machine; see the warning given before")
        return store

    def _give_in(self) -> None:
        import sys

        self._generation = stores.generation()
        warnings.warn(f"reading without a cache: {sys.exc_info()[1]}", RuntimeWarning, stacklevel=4)

    def _in_use(self, records: Sequence[Record]) -> Sequence[bool]:
        """Tell which records some open dataset names, on this machine: those are not removed to make room."""
        store = self._opened
        if store is None:
            return [True] * len(records)
        signatures = np.array([_signature(r.key, r.digest) for r in records], np.uint64)
        used = np.zeros(len(records), bool)
        for manifest in open_manifests(str(store.directory.manifests)):
            wanted = manifest.keys.view("<u8")[:, 0] ^ manifest.digests
            used |= np.isin(signatures, wanted)
        return list(used)


def _is_in(ref: ObjectRef, bucket: str | BucketName | None) -> bool:
    if bucket is None or isinstance(bucket, str):
        return bucket in (None, ref.bucket)
    return (ref.provider, ref.namespace, ref.bucket) == (bucket.provider, bucket.namespace, bucket.name)


def _signature(key: bytes, digest: int) -> int:
    return int.from_bytes(key[:8], "little") ^ digest


def resolve_cache(cache: Cache | str | os.PathLike[str] | bool | None) -> Cache | None:
    """Return the cache that a dataset's `cache=` means: a Cache, a path, None for the default, False for none."""
    if cache is False or env_flag("AISCACHE_DISABLE"):
        if env_flag("AISCACHE_OFFLINE"):
            why = "cache=False" if cache is False else "AISCACHE_DISABLE"
            raise ConfigError(f"AISCACHE_OFFLINE is on, so there must be a cache to read from, but {why} says none")
        return None
    if isinstance(cache, Cache):
        return cache
    if cache is None or isinstance(cache, str | os.PathLike):
        return Cache(cache)
    raise ConfigError(f"cache={cache!r} must be a Cache, a path, None (the default cache) or False (no cache)")
