"""What a dataset is made of: the user's AIS sources and prefixes, as selections in the order of aistore.pytorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from aiscache.errors import ConfigError
from aiscache.origin.names import BucketName

FORMAT = 1  # of the identity below: count up when a listing's meaning changes


@dataclass(frozen=True, slots=True)
class Selection:
    """One listing to make: a source and a prefix. `bucket` None: a source of the user's own that only it can list."""

    source: Any
    prefix: str
    bucket: BucketName | None
    is_group: bool = False

    def __str__(self) -> str:
        if self.bucket is None:
            return repr(self.source)
        prefix = f"/{self.prefix}" if self.prefix else ""
        return f"{self.bucket.url}{prefix}{' (some names)' if self.is_group else ''}"

    def names(self) -> list[str]:
        """The names of an object group that start with the prefix; makes no request."""
        # The SDK's own iteration makes an Object per name, at 5 us each.
        names = getattr(self.source, "_obj_collection", None)
        if names is None:
            names = (item.name for item in self.source.list_all_objects_iter(prefix="", props=None))
        return [name for name in names if name.startswith(self.prefix)]


def selections(sources: Any, prefix_map: Mapping[Any, str | Sequence[str] | None] | None = None) -> list[Selection]:
    """Return what is to be listed, in order: source by source, prefix by prefix, as aistore.pytorch does.

    `sources` is one AISSource or several. A source is looked up in `prefix_map` by itself (the SDK's sources compare by
    identity); one without an entry, or with None, is taken whole. An empty list of prefixes selects nothing.
    """
    from aistore.sdk import AISSource

    listed = [sources] if isinstance(sources, AISSource) else list(sources or ())
    if not listed:
        raise ConfigError("ais_source_list must be provided: a Bucket, an ObjectGroup, or a list of them")
    for source in listed:
        if not isinstance(source, AISSource):
            raise ConfigError(f"{source!r} in ais_source_list is no AISSource, such as client.bucket(...)")
    return [_selection(source, prefix) for source in listed for prefix in _prefixes(source, prefix_map or {})]


def _prefixes(source: Any, prefix_map: Mapping[Any, str | Sequence[str] | None]) -> list[str]:
    prefixes = prefix_map.get(source)
    if prefixes is None:
        return [""]
    return [prefixes] if isinstance(prefixes, str) else list(prefixes)


def _selection(source: Any, prefix: str) -> Selection:
    from aistore.sdk import Bucket
    from aistore.sdk.multiobj import ObjectGroup

    # A subclass with a listing of its own is listed by it.
    if isinstance(source, Bucket) and type(source).list_all_objects_iter is Bucket.list_all_objects_iter:
        return Selection(source, prefix, bucket_name(source))
    if isinstance(source, ObjectGroup) and type(source).list_all_objects_iter is ObjectGroup.list_all_objects_iter:
        return Selection(source, prefix, bucket_name(source.bck), is_group=True)
    return Selection(source, prefix, None)


def bucket_name(bucket: Any) -> BucketName:
    """Return the name of an SDK bucket."""
    namespace = bucket.namespace.get_path() if bucket.namespace else ""
    return BucketName(name=bucket.name, provider=bucket.provider.value, namespace=namespace)


def identity(
    chosen: Iterable[Selection], *, endpoints: Iterable[str], etl: str = "", skip_missing: bool = False
) -> str:
    """Return 32 hex digits that name what is listed, without asking the cluster; "" if a source cannot be named.

    `endpoints` has the endpoint of each selection. A listing that leaves out what is missing of a group is another one.
    """
    hasher = xxhash.xxh3_128(b"%d" % FORMAT)
    for selection, endpoint in zip(chosen, endpoints, strict=True):
        bucket = selection.bucket
        if bucket is None:
            return ""
        kind = "group" if selection.is_group else "bucket"
        _update(hasher, endpoint, kind, bucket.provider, bucket.namespace, bucket.name, selection.prefix)
        if selection.is_group:
            _update(hasher, "skip" if skip_missing else "", *selection.names())
    _update(hasher, "etl", etl)
    return hasher.hexdigest()


def _update(hasher: Any, *texts: str) -> None:
    for text in texts:
        encoded = text.encode("utf-8", "surrogateescape")
        hasher.update(len(encoded).to_bytes(4, "little") + encoded)
