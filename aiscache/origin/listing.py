"""The listing of a bucket, page by page, straight from msgpack to light entries.

`GET /v1/buckets/B` with a JSON body; a page has 10,000 names unless the cluster is set otherwise. Zero fields are left
out on the wire, so a 0-byte object has no `s`. The checksum comes without its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aiscache.errors import OriginError
from aiscache.origin.bounded import bounded
from aiscache.origin.control import translate
from aiscache.origin.names import BucketName, quoted
from aiscache.origin.settings import OriginSettings

PROPS = "name,size,checksum,version"


class Entry(msgspec.Struct, gc=False):
    """One object of a listing, under AIS's short names: name, size, checksum, version."""

    n: str
    s: int = 0
    cs: str = ""
    v: str = ""


class _Page(msgspec.Struct):
    UUID: str = ""
    ContinuationToken: str = ""
    Entries: list[Entry] | None = None


_DECODER = msgspec.msgpack.Decoder(_Page)


def list_pages(client: Any, bucket: BucketName, *, prefix: str = "", settings: OriginSettings) -> Iterator[list[Entry]]:
    """Yield the pages of a listing in the cluster's order; OriginError and its kin on failure."""
    uuid = token = ""
    while True:
        page = _page(client, bucket, message=_message(prefix, uuid=uuid, token=token), settings=settings)
        if page.Entries:
            yield page.Entries
        if not page.ContinuationToken:
            return
        if page.ContinuationToken == token:
            raise OriginError(f"the listing of {bucket.url} by {settings.endpoint} does not move on from {token!r}")
        uuid, token = page.UUID, page.ContinuationToken


def _message(prefix: str, *, uuid: str, token: str) -> dict[str, Any]:
    value = {
        "prefix": prefix,
        "pagesize": 0,
        "uuid": uuid,
        "props": PROPS,
        "continuation_token": token,
        "flags": "0",
        "target": "",
    }
    return {"action": "list", "name": "", "value": value}


def _page(client: Any, bucket: BucketName, *, message: dict[str, Any], settings: OriginSettings) -> _Page:
    """Ask for a page; as with an object, one that came damaged is asked for once more."""
    damage: Exception | None = None
    for _ in range(2):
        body = _request(client, bucket, message=message, settings=settings)
        try:
            return _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            damage = error
    raise OriginError(f"the listing of {bucket.url} by {settings.endpoint} cannot be read: {damage}") from damage


def _request(client: Any, bucket: BucketName, *, message: dict[str, Any], settings: OriginSettings) -> bytes:
    params = {"provider": bucket.provider}
    if bucket.namespace:
        params["namespace"] = bucket.namespace
    # Told with each request: `requests` lets REQUESTS_CA_BUNDLE win over what a session was told.
    options = {"verify": settings.ca or settings.verify, "headers": {"Accept": "application/msgpack"}}
    path = f"buckets/{quoted(bucket.name)}"
    try:
        response = client.request("GET", path, json=message, params=params, **options, **bounded(settings))
        return bytes(response.content)
    except Exception as error:
        raise translate(error, what=f"bucket {bucket.url}", endpoint=settings.endpoint) from error
