"""`Listed`: what all datasets are: a listing, a cache to read it through, and a cluster behind that."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aiscache.cache import Cache, resolve_cache
from aiscache.counting import counting
from aiscache.datasets.content import as_content, as_contents, content_kind
from aiscache.datasets.process_directory import process_directory
from aiscache.datasets.reader import Reader
from aiscache.manifest import Listing, Manifest, ManifestStore
from aiscache.origin import Origin
from aiscache.view import View

if TYPE_CHECKING:
    from aistore.sdk import AISSource
    from aistore.sdk.obj.object import Object

PrefixMap = Mapping["AISSource", str | list[str] | None]
NO_PREFIXES: PrefixMap = MappingProxyType({})


class Listed:
    """The objects of some sources, in the order of their listing, read through a cache.

    The listing is made when the dataset is: one request per 10,000 objects, shared by all processes that make the same
    dataset at the same time. It lies in one mapped file, and a pickled dataset names that file. Where the cache is
    offline, it is the one that was stored last, and NotCachedError if there is none.
    """

    manifest: Manifest

    def __init__(
        self,
        ais_source_list: AISSource | Sequence[AISSource],
        prefix_map: PrefixMap = NO_PREFIXES,
        *,
        etl_name: str | None = None,
        cache: Cache | str | os.PathLike[str] | bool | None = None,
        content: str = "bytes",
        max_listing_age_s: float = 0.0,
        on_shrink: str = "warn",
        show_progress: bool = False,
    ) -> None:
        from aistore.sdk import AISSource  # half a second, which a spawned worker has no need to spend

        listing = Listing(ais_source_list, prefix_map, etl=etl_name or "")
        self._ais_source_list = [ais_source_list] if isinstance(ais_source_list, AISSource) else list(ais_source_list)
        self._prefix_map = prefix_map
        self._etl_name = etl_name
        self._show_progress = show_progress
        self._content = content_kind(content)
        self._convert, self._convert_all = as_content(content), as_contents(content)
        self.cache = resolve_cache(cache)
        self.manifest = self._listed(listing, max_age_s=max_listing_age_s, on_shrink=on_shrink)
        origins = [Origin.from_client(selection.source.client) for selection in listing.selections]
        by_endpoint = {origin.endpoint: origin for origin in origins}
        self._length = len(self.manifest)
        clusters = {source.cluster: by_endpoint[source.endpoint] for source in self.manifest.sources}
        self._reader = Reader(self.manifest, cache=self.cache, origins=clusters)

    def get_obj_list(self) -> list[Object]:
        """Return SDK objects, with `props_cached.size`, for all rows: made when asked for, 10 us each.

        `manifest` is the cheap form.
        """
        return list(self._objects(range(len(self.manifest))))

    def read(self, index: int) -> View:
        """Return the bytes of the object in a row of the listing, from the cache or else from the cluster."""
        return self._reader.read(index)

    def read_many(self, indices: Sequence[int]) -> list[View]:
        """Return the bytes of many rows, in their order: one look into the index, then all misses at once."""
        return self._reader.read_many(indices)

    def _samples(self, indices: Sequence[int]) -> list[tuple[str, Any]]:
        contents = self._convert_all(self.read_many(indices))
        return list(zip(self.manifest.names_of(indices), contents, strict=True))

    def _objects(self, indices: Iterable[int]) -> Iterable[Object]:
        from aiscache.datasets.sdk_objects import sdk_objects

        return sdk_objects(self.manifest, indices, origins=self._reader.origins)

    def _listed(self, listing: Listing, *, max_age_s: float, on_shrink: str) -> Manifest:
        cache = self.cache
        manifests = ManifestStore(self._manifest_directory(), room=None if cache is None else cache.room_for)
        if cache is not None and cache.settings.offline:
            return listing.stored(manifests, cache=cache.settings.path)
        with counting("listing", "objects", show=self._show_progress) as progress:
            build = partial(listing.build, progress)
            return manifests.load_or_build(listing.identity, build, max_age_s=max_age_s, on_shrink=on_shrink)

    def _manifest_directory(self) -> str:
        store = None if self.cache is None else self.cache.store()
        return process_directory() if store is None else str(store.directory.manifests)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the sources: the listing is made, and the cluster's settings are in the origin."""
        state = self.__dict__.copy()
        state.pop("_ais_source_list", None)
        state.pop("_prefix_map", None)
        return state
