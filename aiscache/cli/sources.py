"""What `ais://bucket/prefix` means: as arguments write sources, and as the SDK has them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiscache.errors import ConfigError

_URL = re.compile(r"([a-z0-9]+)://(?:(@[^#/]*#[^/]*|#[^/]+)/)?([^/#@]+)(?:/(.*))?", re.DOTALL)
_RANGE = re.compile(r"\{\d+\.\.\d+(\.\.\d+)?\}")
_ALIASES = {"s3": "aws", "gs": "gcp", "az": "azure"}  # as people write them: as the cluster calls them
_PROVIDERS = ("ais", "aws", "gcp", "azure", "oci")
_KNOWN = "ais, aws (s3), gcp (gs), azure (az), oci"
_FORM = "PROVIDER://BUCKET[/PREFIX], as in ais://imagenet or s3://data/train/"


class SourceUrl(NamedTuple):
    """A bucket of some provider, and what the names of its objects begin with."""

    provider: str
    namespace: str
    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        namespace = f"{self.namespace}/" if self.namespace else ""
        return f"{self.provider}://{namespace}{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def source_url(text: str) -> SourceUrl:
    """Convert an argument; the error says what is accepted."""
    match = _URL.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a source; write {_FORM}")
    provider, namespace, bucket, prefix = match.groups(default="")
    provider = _ALIASES.get(provider, provider)
    if provider not in _PROVIDERS:
        raise argparse.ArgumentTypeError(f"{text!r} names no provider of AIStore; there are {_KNOWN}")
    return SourceUrl(provider, f"@{namespace}" if namespace.startswith("#") else namespace, bucket, prefix)


def endpoint_of(given: str | None) -> str:
    """Return the cluster's URL: as given, else AIS_ENDPOINT; ConfigError if there is none, or it is none."""
    endpoint = given or os.environ.get("AIS_ENDPOINT", "")
    if not endpoint:
        raise ConfigError("which cluster? Give --endpoint URL, or set AIS_ENDPOINT")
    if not re.match(r"https?://[^/]", endpoint):
        raise ConfigError(f"the endpoint {endpoint!r} is not a URL; write http://HOST:PORT")
    return endpoint


def expanded(template: str) -> list[str]:
    """Return the names of a template; ConfigError if it has no range."""
    from aistore.sdk.utils import expand_braces

    try:
        names = list(expand_braces(template)) if _RANGE.search(template) else []
    except ValueError as error:
        raise ConfigError(f"the template {template!r} cannot be read: {error}") from error
    if not names:
        raise ConfigError(f"the template {template!r} has no range; write one as in 'shard-{{0000..0099}}.tar'")
    return names


def read_names(path: str) -> list[str]:
    """Return the lines of a file ("-": stdin) that are not empty; ConfigError if it cannot be read, or has none."""
    try:
        if path == "-":
            lines = sys.stdin.read().splitlines()
        else:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"the list {path} cannot be read: {error.strerror}") from error
    names = [line for line in lines if line.strip()]
    if not names:
        raise ConfigError(f"the list {path} is empty; it has a name, or a URL, on each line")
    return names


def by_bucket(urls: Sequence[SourceUrl], names: Iterable[str]) -> dict[SourceUrl, list[str]]:
    """Return object names by bucket, each once: a name is a URL, or is appended to the only one of `urls`."""
    found: dict[SourceUrl, dict[str, None]] = {}
    for name in names:
        if _URL.fullmatch(name):
            one = _listed_url(name)
        elif len(urls) == 1:
            one = urls[0]._replace(prefix=urls[0].prefix + name)
        else:
            raise ConfigError(f"in which bucket is {name!r}? Give one SOURCE for the names of the list, or write URLs")
        found.setdefault(one._replace(prefix=""), {})[one.prefix] = None
    return {bucket: list(names) for bucket, names in found.items()}


def sdk_sources(
    client: Any, urls: Sequence[SourceUrl], *, names: dict[SourceUrl, list[str]] | None
) -> tuple[list[Any], dict[Any, str]]:
    """Return the SDK's sources, and the prefix of each: whole buckets, or the names that were given for each."""
    if names is not None:
        return [_bucket(client, url).objects(obj_names=found) for url, found in names.items()], {}
    buckets = [_bucket(client, url) for url in urls]
    return buckets, {bucket: url.prefix for bucket, url in zip(buckets, urls, strict=True)}


def _listed_url(text: str) -> SourceUrl:
    try:
        url = source_url(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"in the list: {error}") from None
    if not url.prefix:
        raise ConfigError(f"in the list: {text!r} names a bucket; write the URL of an object")
    return url


def _bucket(client: Any, url: SourceUrl) -> Any:
    from aistore.sdk.namespace import Namespace

    uuid, _, name = url.namespace.removeprefix("@").partition("#")
    namespace = Namespace(uuid=uuid, name=name) if url.namespace else None
    return client.bucket(url.bucket, provider=url.provider, namespace=namespace)
