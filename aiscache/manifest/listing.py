"""Lists a dataset's sources into a draft: `Listing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

from aiscache.keys import ObjectRef
from aiscache.manifest.draft import Draft
from aiscache.manifest.layout import Source
from aiscache.manifest.manifest import Manifest
from aiscache.manifest.sources import Selection, identity, selections
from aiscache.manifest.store import ManifestStore
from aiscache.offline import not_listed
from aiscache.origin import BucketName, Entry, Origin

_PROPS = "name,size,checksum,version"
_PAGE = 10_000

_COLUMNS = (attrgetter("n"), attrgetter("s"), attrgetter("cs"), attrgetter("v"))


class Lister(Protocol):
    """What is needed of an origin."""

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        ...

    @property
    def uuid(self) -> str:
        """The cluster's UUID."""
        ...

    def list_pages(self, bucket: BucketName, prefix: str = "") -> Iterator[list[Entry]]:
        """Yield a bucket's objects page by page."""
        ...

    def head(self, refs: Iterable[ObjectRef], *, skip_missing: bool) -> list[ObjectRef]:
        """Return refs with size, checksum and version."""
        ...


class Listing:
    """The sources of a dataset, ready to be listed: `identity` without a request, `build` with them.

    `prefix_map` is that of aistore.pytorch. `origin_of` makes the origin from a source's `client`. With `skip_missing`
    the names of an object group that the cluster does not have are left out, instead of an error for the first.
    """

    def __init__(
        self,
        sources: Any,
        prefix_map: Mapping[Any, str | Sequence[str] | None] | None = None,
        *,
        etl: str = "",
        skip_missing: bool = False,
        origin_of: Callable[[Any], Lister] = Origin.from_client,
    ) -> None:
        self.selections = selections(sources, prefix_map)
        self.origins = [origin_of(selection.source.client) for selection in self.selections]
        self.etl = etl
        self._skip_missing = skip_missing
        endpoints = [origin.endpoint for origin in self.origins]
        self.identity = identity(self.selections, endpoints=endpoints, etl=etl, skip_missing=skip_missing)

    def stored(self, manifests: ManifestStore, *, cache: str | None) -> Manifest:
        """Return the manifest that was made last, however long ago, of a cache that is offline; no request.

        Raises NotCachedError if there is none; `cache` is the cache's path.
        """
        manifest = manifests.stored(self.identity)
        if manifest is None:
            endpoint = " and ".join(dict.fromkeys(origin.endpoint for origin in self.origins))
            raise not_listed(", ".join(map(str, self.selections)), cache=cache, endpoint=endpoint)
        return manifest

    def build(self, progress: Callable[[int], Any] = lambda objects: None) -> Draft:
        """List everything, in the order of aistore.pytorch; OriginError and its kin on failure.

        `progress` is told how many objects were listed since it was told last.
        """
        draft = Draft(etl=self.etl)
        for selection, origin in zip(self.selections, self.origins, strict=True):
            for objects in self._list(draft, selection, origin):
                progress(objects)
        return draft

    def _list(self, draft: Draft, selection: Selection, origin: Lister) -> Iterator[int]:
        """List a selection, and yield how many objects came at a time."""
        if selection.bucket is None:
            return _list_other(draft, selection, origin=origin)
        if selection.is_group:
            skip = self._skip_missing
            return _list_group(draft, selection, origin=origin, bucket=selection.bucket, skip_missing=skip)
        return _list_bucket(draft, selection, origin=origin, bucket=selection.bucket)


def _source(origin: Lister, bucket: BucketName) -> Source:
    return Source(origin.uuid, origin.endpoint, bucket.provider, bucket.namespace, bucket.name)


def _list_bucket(draft: Draft, selection: Selection, *, origin: Lister, bucket: BucketName) -> Iterator[int]:
    draft.begin(_source(origin, bucket))
    for page in origin.list_pages(bucket, selection.prefix):
        names, sizes, checksums, versions = ([get(entry) for entry in page] for get in _COLUMNS)
        draft.extend(names, sizes=sizes, checksums=checksums, versions=versions)
        yield len(names)


def _list_group(
    draft: Draft, selection: Selection, *, origin: Lister, bucket: BucketName, skip_missing: bool
) -> Iterator[int]:
    """An object group has no listing: one HEAD per name, many at a time."""
    source = _source(origin, bucket)
    draft.begin(source)
    names = selection.names()
    for start in range(0, len(names), _PAGE):
        refs = origin.head(_refs(source, names[start : start + _PAGE]), skip_missing=skip_missing)
        draft.extend(
            [ref.name for ref in refs],
            sizes=[ref.size for ref in refs],
            checksums=[ref.checksum for ref in refs],
            versions=[ref.version for ref in refs],
        )
        yield len(refs)


def _refs(source: Source, names: Iterable[str]) -> Iterator[ObjectRef]:
    for name in names:
        yield ObjectRef(
            cluster=source.cluster,
            provider=source.provider,
            namespace=source.namespace,
            bucket=source.bucket,
            name=name,
        )


def _list_other(draft: Draft, selection: Selection, *, origin: Lister) -> Iterator[int]:
    """A source of the user's own: what it yields, object by object."""
    for item in selection.source.list_all_objects_iter(prefix=selection.prefix, props=_PROPS):
        provider = getattr(item.bucket_provider, "value", item.bucket_provider)
        bucket = BucketName(
            name=item.bucket_name,
            provider=str(provider),
            namespace=item.query_params.get("namespace", ""),
        )
        props = item.props_cached
        draft.begin(_source(origin, bucket))
        draft.extend(
            [item.name],
            sizes=[int(props.size) if props is not None else -1],
            checksums=[(props.checksum_value or "") if props is not None else ""],
            versions=[str(props.obj_version or "") if props is not None else ""],
        )
        yield 1
