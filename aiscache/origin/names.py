"""How AIS names an object: in a URL, and in the cluster map's hash ("uname").

Recorded from a real cluster: spaces, unicode, `% ? # + & ; " \\` and 1100 characters work when they are quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from aiscache.keys import ObjectRef

# Characters that a `Location` may hold raw although a URL must not, and percent signs that escape nothing.
_RAW = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^!#-;=?-\[\]_a-z~%]")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketName:
    """A bucket: provider, namespace in AIS's spelling (`@uuid#name`, "" for the global one) and name."""

    name: str
    provider: str = "ais"
    namespace: str = ""

    @property
    def url(self) -> str:
        """How people and messages write it: `ais://bucket`."""
        return f"{self.provider}://{self.namespace}/{self.name}" if self.namespace else f"{self.provider}://{self.name}"


def quoted(name: str) -> str:
    """Percent-encode a name for a URL's path; slashes stay."""
    return quote(name.encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=1024)
def _affixes(provider: str, namespace: str, bucket: str, etl: str) -> tuple[str, str]:
    query = f"?provider={quoted(provider)}"
    if namespace:
        query += f"&namespace={quote(namespace, safe='')}"
    if etl:
        query += f"&etl_name={quote(etl, safe='')}"
    return f"/v1/objects/{quoted(bucket)}/", query


def object_path(ref: ObjectRef) -> str:
    """Return path and query of an object's URL, the same at the proxy and at the target; 1-2 us."""
    prefix, query = _affixes(ref.provider, ref.namespace, ref.bucket, ref.etl)
    return f"{prefix}{quoted(ref.name)}{query}"


def uname(ref: ObjectRef) -> bytes:
    """Return the name that the cluster map hashes: `ais/@#/bucket/name` (the SDK's `Bucket.get_path()` + name)."""
    text = f"{ref.provider}/{ref.namespace or '@#'}/{ref.bucket}/{ref.name}"
    return text.encode("utf-8", "surrogateescape")


def is_cleaned(name: str) -> bool:
    """Whether HTTP would change the name on its way: a `..` in a path is resolved by every client and server."""
    return ".." in name and "/../" in f"/{name}/"


def requoted(location: bytes) -> str:
    """Make a valid URL of a `Location` header, which AIS may send with raw spaces, quotes and backslashes."""
    return _RAW.sub(lambda raw: b"%%%02X" % raw[0][0], location).decode("ascii")
