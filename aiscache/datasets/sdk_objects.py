"""Objects of the AIS SDK for rows of a listing, for code that was written for `aistore.pytorch`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from aistore.sdk.bucket import Bucket
from aistore.sdk.namespace import Namespace
from aistore.sdk.obj.object import Object
from aistore.sdk.types import BucketEntry

from aiscache.manifest import Manifest
from aiscache.origin import Origin
from aiscache.origin.control import request_client


def sdk_objects(manifest: Manifest, indices: Iterable[int], *, origins: Mapping[str, Origin]) -> Iterator[Object]:
    """Yield an `aistore.sdk.Object` with size, checksum and version for each row; no request is made."""
    clients = {cluster: request_client(origin.settings) for cluster, origin in origins.items()}
    buckets: dict[tuple[str, ...], Bucket] = {}
    for index in indices:
        ref = manifest.ref(index)
        place = (ref.cluster, ref.provider, ref.namespace, ref.bucket)
        bucket = buckets.get(place)
        if bucket is None:
            bucket = buckets[place] = Bucket(
                ref.bucket, clients[ref.cluster], ref.provider, sdk_namespace(ref.namespace)
            )
        entry = BucketEntry(n=ref.name, cs=ref.checksum, v=ref.version, s=ref.size)
        yield bucket.object(ref.name, entry.generate_object_props())


def sdk_namespace(path: str) -> Namespace | None:
    """Return the SDK's namespace for a path such as "@uuid#name", None for the global one."""
    if not path:
        return None
    uuid, _, name = path.removeprefix("@").partition("#")
    return Namespace(uuid=uuid, name=name)
