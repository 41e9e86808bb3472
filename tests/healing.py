"""A cache directory that something happened to, and somebody who opens it in a process of its own."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from pathlib import Path
from typing import Any

from aiscache import Cache
from aiscache.errors import CacheDirectoryError
from aiscache.manifest import Draft, Manifest, ManifestStore, Source
from tests.remote import Remote, answer_calls
from tests.store.objects import Blob

LISTING = "1" * 32
SHARDS = 5
MANY = [Blob(f"o{number:04}", size=300 + number) for number in range(200)]
LARGE = [Blob(f"large{number}", size=150_000) for number in range(10)]


def draft() -> Draft:
    made = Draft()
    made.begin(Source("c", "http://h", "ais", "", "b"))
    names = [f"shard-{number:06}.tar" for number in range(SHARDS)]
    made.extend(names, sizes=[10_000] * SHARDS, checksums=[f"{n:016x}" for n in range(SHARDS)], versions=["1"] * SHARDS)
    return made


def listing(cache: Cache) -> Manifest:
    store = cache.store()
    assert store is not None
    return ManifestStore(str(store.directory.manifests)).load_or_build(LISTING, draft, max_age_s=1e6)


def fill(path: Path) -> None:
    """Make a cache that has one of everything but an index of shards, used by two processes and closed."""
    with Cache(path, capacity="50MB") as cache:
        for blob in (*MANY, *LARGE):
            assert cache.put(blob.ref, blob.data)
        listing(cache)
        cache.lookup([blob.key for blob in MANY], [blob.digest for blob in MANY])


class Opener:
    """Opens the cache, and uses all there is in it."""

    def __init__(self, path: str, verify: str) -> None:
        self._path, self._verify = path, verify
        self._logged: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self._logged.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("aiscache").addHandler(handler)
        warnings.simplefilter("error")

    def heal(self) -> tuple[int, list[str]]:
        """Return how many objects were found, and what was logged when the cache was opened."""
        with Cache(self._path, verify=self._verify) as cache:
            logged = list(self._logged)
            present = self.look(cache)
            cache.stats()
            cache.verify()
            assert self.look(cache) <= present
            self.check_listing(cache)
            cache.evict("nothing")  # gives back what is dead
            self.look(cache)
            assert all(cache.contains(blob.ref) or cache.put(blob.ref, blob.data) for blob in (*MANY, *LARGE))
            assert self.look(cache) == len(MANY) + len(LARGE)
        self._logged.clear()
        with Cache(self._path) as cache:
            assert self.look(cache) == len(MANY) + len(LARGE)
            assert cache.verify() == []
            cache.repair()
            self.look(cache)
            cache.clear()
            assert self.look(cache) == 0
        assert self._logged == []
        return present, logged

    def is_refused(self) -> bool:
        try:
            Cache(self._path).close()
        except CacheDirectoryError:
            return True
        return False

    def look(self, cache: Cache) -> int:
        many = [*MANY, *LARGE]
        views, _ = cache.lookup([blob.key for blob in many], [blob.digest for blob in many])
        for blob, view in zip(many, views, strict=True):
            assert view is None or bytes(view) == blob.data, f"wrong bytes for {blob}"
        return sum(view is not None for view in views)

    def check_listing(self, cache: Cache) -> None:
        assert [ref.name for ref in listing(cache)] == [f"shard-{number:06}.tar" for number in range(SHARDS)]


class Patient(Remote):
    """An `Opener` in another process."""

    def __init__(self, path: str | os.PathLike[str], *, verify: str = "fill") -> None:
        super().__init__(__name__, str(path), verify)


def serve(pipe: socket.socket) -> None:
    answer_calls(pipe, Opener)


def damage(file: Path, how: str, *, size: int, garbage: Any) -> None:
    """Cut off, zero or overwrite the last `size` bytes of a file."""
    whole = file.stat().st_size
    os.truncate(file, whole - size)
    if how == "zeroed":
        os.truncate(file, whole)
    elif how == "garbage":
        with file.open("ab") as opened:
            opened.write(garbage.randbytes(size))
