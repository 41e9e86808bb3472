"""The listing of a bucket, page by page, straight from msgpack to light entries.

`GET /v1/buckets/B` with a JSON body; a page has 10,000 names unless the cluster is set otherwise. Zero fields are left
out on the wire, so a 0-byte object has no `s`. The checksum comes without its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aiscache.errors import OriginError
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
    endpoint = settings.endpoint
    params = {"provider": bucket.provider}
    if bucket.namespace:
        params["namespace"] = bucket.namespace
    headers = {"Accept": "application/msgpack"}
    try:
        path = f"buckets/{quoted(bucket.name)}"
        # Told with each request: `requests` lets REQUESTS_CA_BUNDLE win over what a session was told.
        trust = {"verify": settings.ca or settings.verify}
        body = client.request("GET", path=path, headers=headers, json=message, params=params, **trust).content
    except Exception as error:
        raise translate(error, what=f"bucket {bucket.url}", endpoint=endpoint) from error
    try:
        return _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise OriginError(f"the listing of {bucket.url} by {endpoint} cannot be read: {error}") from error
