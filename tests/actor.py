"""`Actor`: somebody who uses a `Cache` in every way there is. `Elsewhere` is one in another process.

What it reads it holds against the hash of what the cluster has: a wrong byte is an AssertionError, and so is an
exception that is not of `aiscache.errors`.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from aistore.sdk import Client

from aiscache import Cache
from aiscache.errors import ChecksumMismatchError, ObjectChangedError, ObjectNotFoundError
from aiscache.fill import Wanted
from aiscache.keys import ObjectRef, pack_identity
from aiscache.manifest import Listing, Manifest, ManifestStore
from aiscache.origin import Origin, OriginSettings, RetryPolicy
from aiscache.store import tiers
from aiscache.store.staging import Staging
from aiscache.view import View
from tests.remote import Remote, answer_calls

STAGING_BYTES = 400_000
_QUICK = RetryPolicy(status_retries=2, backoff_s=0.01, network_attempts=3, network_waits_s=((0.001, 0.01),))

RIGHT = "right"
NOT_THIS_VERSION = {ObjectChangedError.__name__, ObjectNotFoundError.__name__}


@dataclass(frozen=True)
class Version:
    """A version that the cluster has, or had."""

    ref: ObjectRef
    hash: int

    def check(self, view: View) -> str:
        assert xxhash.xxh3_64_intdigest(view.data) == self.hash, f"wrong bytes for {self.ref}"
        return RIGHT


class Actor:
    """Uses the cache at `path` (None: the unnamed one) through one handle or several."""

    def __init__(self, shared_memory: str, endpoint: str, path: str | None, options: dict[str, Any]) -> None:
        tiers.SHARED_MEMORY = Path(shared_memory)
        self._path, self._options = path, options
        self._origin = Origin.of(OriginSettings(endpoint=endpoint, connect_timeout_s=5, read_timeout_s=5, retry=_QUICK))
        self._origin.cluster_map()
        self._handles: list[Cache] = []
        self._turn = 0
        self._held: list[tuple[Version, View]] = []
        self._listed: list[Manifest] = []
        self._staging: Staging | None = None

    @property
    def cache(self) -> Cache:
        """One of the handles, another one each time."""
        if not self._handles:
            self.open()
        self._turn += 1
        return self._handles[self._turn % len(self._handles)]

    def umask(self, mask: int) -> None:
        os.umask(mask)

    # ---- handles

    def open(self) -> None:
        self._handles.append(Cache(self._path, **self._options))

    def open_by_pickle(self) -> None:
        self._handles.append(pickle.loads(pickle.dumps(self.cache)))

    def close_one(self) -> None:
        if self._handles:
            self._handles.pop().close()
        if not self._handles:  # it closed with the store
            self._staging = None

    def close(self) -> None:
        while self._handles:
            self._handles.pop().close()
        self._staging = None

    # ---- reading

    def read(self, versions: Sequence[Version]) -> list[str]:
        """Return for each whether it was right, or the name of the error."""
        try:
            views = self.cache.read_many([version.ref for version in versions])
        except (ObjectChangedError, ObjectNotFoundError, ChecksumMismatchError) as error:
            if len(versions) == 1:
                return [type(error).__name__]
            return [self.read([version])[0] for version in versions]
        return [version.check(view) for version, view in zip(versions, views, strict=True)]

    def read_in_threads(self, versions: Sequence[Version]) -> None:
        """Read what the cluster has in three threads at once, each from another place on."""
        outcomes: list[Any] = []

        def work(first: int) -> None:
            try:
                outcomes.append(self.read([*versions[first:], *versions[:first]]))
            except BaseException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [[RIGHT] * len(versions)] * 3, outcomes

    def look(self, versions: Sequence[Version]) -> None:
        wanted = [Wanted.of(version.ref) for version in versions]
        views, _ = self.cache.lookup([one.key for one in wanted], [one.digest for one in wanted])
        for version, view in zip(versions, views, strict=True):
            if view is not None:
                version.check(view)

    def hold(self, version: Version) -> None:
        if len(self._held) < 4:
            self._held.append((version, self.cache.read(version.ref)))

    def check_held(self) -> None:
        for version, view in self._held:
            version.check(view)

    def let_go(self) -> None:
        self.check_held()
        self._held.clear()
        store = self.cache.store()
        assert store is not None
        store.trim()

    # ---- changing

    def put(self, version: Version, data: bytes) -> bool:
        return self.cache.put(version.ref, data)

    def evict(self, prefix: str, force: bool) -> None:
        self.cache.evict(prefix=prefix, force=force)

    def clear(self) -> None:
        self.cache.clear()

    def verify(self) -> None:
        assert self.cache.verify() == []

    def repair(self) -> None:
        self.cache.repair()

    def stats(self) -> None:
        own, all_ = self.cache.stats(scope="process").asdict(), self.cache.stats().asdict()
        assert own["checksum_failures"] == 0
        assert all(0 <= own[name] <= all_[name] for name in own if name != "hit_ratio")

    # ---- what else lies in a cache

    def list(self, bucket: str, versions: Sequence[Version]) -> None:
        """List the bucket, and keep the listing open, as a dataset does."""
        source = Client(self._origin.endpoint).bucket(bucket)
        listing = Listing(source, origin_of=lambda _: self._origin)
        store = self.cache.store()
        assert store is not None
        manifests = ManifestStore(str(store.directory.manifests), room=self.cache.room_for)
        self._listed.append(manifests.load_or_build(listing.identity, listing.build, on_shrink="ignore"))
        found = sorted(self._listed[-1], key=lambda ref: ref.name)
        assert found == [version.ref for version in versions], (found, versions)

    def unlist(self) -> None:
        self._listed.clear()

    def stage(self, version: Version, data: bytes) -> None:
        store = self.cache.store()
        assert store is not None
        if self._staging is None:
            self._staging = store.open_staging(STAGING_BYTES)
        ref = version.ref
        reservation = self._staging.reserve(
            key=ref.key, digest=ref.digest, identity=pack_identity(ref), length=len(data)
        )
        if reservation is not None:
            reservation.fill(data)
            version.check(store.publish([reservation])[0])

    def unstage(self) -> None:
        if self._staging is not None and self._handles:
            for segment in self._staging.segments:
                self._staging.drop(segment)

    def end(self) -> None:
        self.check_held()
        self._held.clear()
        self._listed.clear()
        self.close()
        self._origin.close()


class Elsewhere(Remote):
    """An `Actor` in another process."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(__name__, *arguments)


def serve(pipe: socket.socket) -> None:
    answer_calls(pipe, Actor)


def bytes_on_disk(path: str | os.PathLike[str], *, without: str = "") -> int:
    """Return what a directory and all in it take, less a part of it; what goes away meanwhile counts as gone."""
    total = os.stat(path).st_blocks * 512
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    total += 0 if entry.name == without else bytes_on_disk(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
