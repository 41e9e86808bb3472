"""Caches of a user's own around the SDK: look, else fetch and keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Place, bucket


class Around:
    """A map-style dataset with a cache in a directory. Subclasses say how to look and how to keep."""

    def __init__(self, place: Place) -> None:
        self.bucket = bucket(place)
        self.directory = os.path.join(place.directory, type(self).__name__)
        self.names = sorted(entry.name for entry in self.bucket.list_all_objects())
        self._opened: tuple[int, Any] = (0, None)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        name = self.names[index]
        if self._opened[0] != os.getpid():  # a forked worker opens its own
            self._opened = (os.getpid(), self.open())
        data = self.look(self._opened[1], name)
        if data is None:
            data = self.bucket.object(name).get_reader().read_all()
            self.keep(self._opened[1], name, data)
        return name, data

    def open(self) -> Any:
        os.makedirs(self.directory, exist_ok=True)
        return self.directory

    def look(self, cache: Any, name: str) -> bytes | None:
        raise NotImplementedError

    def keep(self, cache: Any, name: str, data: bytes) -> None:
        raise NotImplementedError


class FilePerObject(Around):
    """A file for each object."""

    def look(self, cache: str, name: str) -> bytes | None:
        try:
            with open(os.path.join(cache, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def keep(self, cache: str, name: str, data: bytes) -> None:
        draft = os.path.join(cache, f".{os.getpid()}-{name}")
        Path(draft).write_bytes(data)
        os.rename(draft, os.path.join(cache, name))


class Lmdb(Around):
    """The objects as values in LMDB."""

    def open(self) -> Any:
        import lmdb

        os.makedirs(self.directory, exist_ok=True)
        return lmdb.open(self.directory, map_size=8 << 30, sync=False, readahead=False)

    def look(self, cache: Any, name: str) -> bytes | None:
        with cache.begin() as transaction:
            found: bytes | None = transaction.get(name.encode())
        return found

    def keep(self, cache: Any, name: str, data: bytes) -> None:
        with cache.begin(write=True) as transaction:
            transaction.put(name.encode(), data)


class DiskCache(Around):
    """diskcache.Cache, without a limit that evicts."""

    def open(self) -> Any:
        import diskcache

        return diskcache.Cache(self.directory, size_limit=1 << 40, eviction_policy="none")

    def look(self, cache: Any, name: str) -> bytes | None:
        found: bytes | None = cache.get(name)
        return found

    def keep(self, cache: Any, name: str, data: bytes) -> None:
        cache[name] = data


class MultiStorageClient(Around):
    """NVIDIA's multi-storage-client with its cache, without its check of the source's version on each read."""

    def open(self) -> Any:
        import multistorageclient

        options = {"endpoint": self.bucket.client.base_url.removesuffix("/v1"), "base_path": self.bucket.name}
        config = {
            "profiles": {"ais": {"caching_enabled": True, "storage_provider": {"type": "ais", "options": options}}},
            "cache": {"size": "20G", "location": self.directory, "check_source_version": False},
        }
        return multistorageclient.StorageClient(multistorageclient.StorageClientConfig.from_dict(config, "ais"))

    def look(self, cache: Any, name: str) -> bytes | None:
        data: bytes = cache.read(name)
        return data


CONTENDERS = {
    "file-per-object": Contender("a file per object around the SDK", FilePerObject),
    "lmdb": Contender("values in LMDB around the SDK", Lmdb),
    "diskcache": Contender("diskcache around the SDK", DiskCache, needs=("diskcache",)),
    "msc": Contender("multi-storage-client, no version check", MultiStorageClient, needs=("multistorageclient",)),
}
