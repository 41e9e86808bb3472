"""`Reader`: the rows of a listing as bytes, from the cache or else from the cluster."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

from torch.utils.data import get_worker_info

from aiscache.cache import Cache
from aiscache.fill import Wanted, fetch_all
from aiscache.manifest import Manifest
from aiscache.offline import not_cached
from aiscache.origin import Origin
from aiscache.store import Store
from aiscache.view import View

_BLOCK = 8192  # rows looked up in one transaction of the index


class Reader:
    """A listing, a cache to read it through (None for none), and the clusters behind it, by UUID.

    In a DataLoader's worker each view is given what the trainer needs to read the object again, should the place that
    the worker tells it of be gone by then.
    """

    def __init__(self, manifest: Manifest, *, cache: Cache | None, origins: Mapping[str, Origin]) -> None:
        self.manifest = manifest
        self.cache = cache
        self.origins = origins
        for cluster, origin in origins.items():
            origin.note_uuid(cluster)  # so that `Cache.read` finds it too, also if the listing was a stored one
        self._pickled = b""
        self._held: dict[int, View] = {}

    def room_for(self, size_bytes: int) -> AbstractContextManager[bool]:
        """Tell in a `with` whether a file of that size fits into the cache; it does where there is none."""
        return nullcontext(True) if self.cache is None else self.cache.room_for(size_bytes)

    @contextmanager
    def holding(self, rows: Sequence[int]) -> Iterator[None]:
        """Read rows together; `read` of one of them then has it at hand, also if the cache had no room for it."""
        self._held = dict(zip(rows, self.read_many(rows), strict=True))
        try:
            yield
        finally:
            self._held = {}

    def read(self, row: int) -> View:
        """Return the bytes of the object in a row."""
        if self._held and row in self._held:
            return self._held[row]
        manifest = self.manifest
        key = manifest.key(row)
        store = None if self.cache is None else self.cache.store()
        view = None if store is None else store.get(key, manifest.digests.item(row))
        if view is None:
            if store is not None:
                store.counters.add("misses")
            view = self._fetch({key: row})[key]
        if get_worker_info() is not None:
            view.sample = (self, row)
        return view

    def read_many(self, rows: Sequence[int]) -> list[View]:
        """Return the bytes of many rows, in their order: one look into the index, then all misses at once."""
        keys, digests = self.manifest.identities(rows)
        found: list[View | None] = [None] * len(keys)
        misses = len(keys)
        if self.cache is not None:
            found, misses = self.cache.lookup(keys, digests)
        views = self._fill_in(rows, keys, found) if misses else cast(list[View], found)
        if get_worker_info() is not None:
            for row, view in zip(rows, views, strict=True):
                view.sample = (self, row)
        return views

    def _fill_in(self, rows: Sequence[int], keys: list[bytes], found: list[View | None]) -> list[View]:
        """Fetch what was not found."""
        missing = {key: row for key, row, view in zip(keys, rows, found, strict=True) if view is None}
        fetched = self._fetch(missing)
        return [fetched[key] if view is None else view for key, view in zip(keys, found, strict=True)]

    def _fetch(self, rows: dict[bytes, int]) -> dict[bytes, View]:
        store = None if self.cache is None else self.cache.store()
        digest_of = self.manifest.digests.item
        if self.cache is not None and self.cache.settings.offline:
            url, where = self.manifest.ref(next(iter(rows.values()))).url, self.cache.settings.path
            raise not_cached(url, cache=where, missing=self._missing_objects(store), of=len(self.manifest))
        wanted = [Wanted(self.manifest.ref(row), key, digest_of(row)) for key, row in rows.items()]
        return fetch_all(store, wanted, origins=self.origins)

    def _missing_objects(self, store: Store | None) -> int:
        """Return how many objects of the listing are not in the cache; 2 us each."""
        manifest, missing = self.manifest, 0
        if store is None:
            return len(manifest)
        for start in range(0, len(manifest), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(manifest)))
            digests = manifest.digests[rows.start : rows.stop].tolist()
            missing += store.segments_of(list(map(manifest.key, rows)), digests).count(None)
        return missing

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as bytes that were pickled once: a batch carries them, and they are looked into only when needed."""
        if not self._pickled:
            self._pickled = pickle.dumps((self.manifest, self.cache, self.origins))
        return PickledReader, (self._pickled,)


class PickledReader:
    """A `Reader` that came from another process and becomes one when it is first used.

    The handle of the cache that it opens then closes with it.
    """

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._reader: Reader | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._reader is None:
            manifest, cache, origins = pickle.loads(self._pickled)  # noqa: S301  (from a process of our own, as all of it)
            self._reader = Reader(manifest, cache=cache, origins=origins)
            if cache is not None:
                weakref.finalize(self, cache.close).atexit = False
        return getattr(self._reader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return PickledReader, (self._pickled,)
