"""Objects whose bytes follow from their names, so that any process can tell whether it was given the right ones."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiscache.keys import ObjectRef, pack_identity
from aiscache.settings import CacheSettings
from aiscache.store import Reservation, Store, registry
from aiscache.store.eviction import InUse
from aiscache.store.reclaim import keep_all
from aiscache.view import View


class Blob:
    """One version of one object."""

    def __init__(self, name: str, *, size: int = 1000, version: int = 1, bucket: str = "b") -> None:
        self.ref = ObjectRef(cluster="c", provider="ais", bucket=bucket, name=name, size=size, version=str(version))
        self.key, self.digest, self.identity = self.ref.key, self.ref.digest, pack_identity(self.ref)
        self.size = size
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        if self._data is None:  # not a `cached_property`: until Python 3.12 its lock may be held across a fork
            self._data = random.Random(self.key + self.digest.to_bytes(8, "little")).randbytes(self.size)
        return self._data

    def reserve(self, store: Store) -> Reservation | None:
        return store.reserve(key=self.key, digest=self.digest, identity=self.identity, length=self.size)

    def filled(self, store: Store) -> Reservation:
        reservation = self.reserve(store)
        assert reservation is not None, f"no room for {self}"
        reservation.fill(self.data)
        return reservation

    def put(self, store: Store) -> View:
        return store.publish([self.filled(store)])[0]

    def offer(self, store: Store) -> bool:
        """Put it if there is room."""
        reservation = self.reserve(store)
        if reservation is None:
            return False
        reservation.fill(self.data)
        store.publish([reservation])
        return True

    def get(self, store: Store) -> View | None:
        return store.get(self.key, self.digest)

    def is_right(self, store: Store) -> bool:
        """Tell whether the store has it, and nothing but it."""
        view = self.get(store)
        assert view is None or bytes(view) == self.data, f"wrong bytes for {self}"
        return view is not None

    def __repr__(self) -> str:
        return f"{self.ref.name!r} version {self.ref.version} ({self.size} bytes)"


def blobs(count: int, *, size: int = 1000, version: int = 1) -> list[Blob]:
    return [Blob(f"o{number:05}", size=size, version=version) for number in range(count)]


@contextmanager
def opened(
    path: Path | None,
    capacity: int | str | None = None,
    *,
    memory: int | str | None = None,
    in_use: InUse = keep_all,
    verify: str = "fill",
) -> Iterator[Store]:
    store = registry.acquire(
        CacheSettings.resolve(path, capacity=capacity, memory=memory, verify=verify), in_use=in_use
    )
    try:
        yield store
    finally:
        registry.release(store)


def disk_usage(*paths: str | os.PathLike[str]) -> int:
    """Return the bytes that the files and directories under `paths` take, as `du` counts them."""
    total = 0
    for path in paths:
        try:
            total += os.lstat(path).st_blocks * 512
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        total += disk_usage(entry)
                    else:
                        with contextlib.suppress(FileNotFoundError):
                            total += entry.stat(follow_symlinks=False).st_blocks * 512
        except (FileNotFoundError, NotADirectoryError):
            continue
    return total


def segment_files(path: Path) -> list[Path]:
    return sorted((path / "segments").glob("*.seg"))
