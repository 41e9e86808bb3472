"""One AIS cluster as a source of bytes: `Origin`.

    origin = Origin.from_client(client)
    for fetched in origin.fetch(refs, sink):
        fetched.result()                     # what the sink opened, with the verified bytes; or the error

Bodies come straight from the owning targets through libcurl's multi interface, many at a time in the calling thread.
Pickles to its settings; a process has one origin per settings, however often they arrive.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from aiscache.errors import ObjectNotFoundError, OriginError
from aiscache.keys import ObjectRef
from aiscache.origin.clustermap import ClusterMap
from aiscache.origin.engine import Engine
from aiscache.origin.fetched import Fetched, HeapSink, Sink
from aiscache.origin.listing import Entry, list_pages
from aiscache.origin.names import BucketName, is_cleaned, object_path
from aiscache.origin.routes import Routes
from aiscache.origin.run import Run, map_task
from aiscache.origin.settings import LEAST_RATE, OriginSettings
from aiscache.origin.task import GET, HEAD, Task

_IDLE_ENGINES = 4
_BLOCK, _LEAST_BLOCK = 128, 8
_HEAD_PROPS = "&props=size%2Cversion%2Cchecksum"

_registry: dict[OriginSettings, Origin] = {}
_registry_lock = threading.Lock()


class Origin:
    """A cluster, as seen with one set of credentials. Thread-safe; survives fork; connects when first used.

    Make it with `from_client` or `of`. Of equal settings there is one origin per process, so `close` frees the
    connections and leaves the origin usable: the next request opens them anew.
    """

    def __init__(self, settings: OriginSettings) -> None:
        self.settings = settings
        self._routes = Routes()
        self._told_uuid = ""
        self._disconnect()

    def _disconnect(self) -> None:
        """Begin without connections: when new, and in a forked child, where those of the parent must not be used."""
        self._lock = threading.Lock()
        self._map_lock = threading.Lock()
        self._idle: list[Engine] = []
        self._control: Any = None

    @classmethod
    def from_client(cls, client: Any) -> Origin:
        """Return the origin for an `aistore.sdk.Client`, or for the `client` of a bucket or of any `AISSource`."""
        return cls.of(OriginSettings.from_client(client))

    @classmethod
    def of(cls, settings: OriginSettings) -> Origin:
        """Return this process's origin for the settings."""
        with _registry_lock:
            origin = _registry.get(settings)
            if origin is None:
                origin = _registry[settings] = cls(settings)
            return origin

    @classmethod
    def for_cluster(cls, uuid: str) -> Origin | None:
        """Return the newest origin of this process known to lead to the cluster; None if none is. No request."""
        with _registry_lock:
            origins = list(_registry.values())
        for origin in reversed(origins):
            if origin._known_uuid() == uuid:
                return origin
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin.of, (self.settings,)

    def __repr__(self) -> str:
        return f"<Origin {self.settings.endpoint}>"

    @property
    def endpoint(self) -> str:
        """The URL of the proxy, without `/v1`."""
        return self.settings.endpoint

    # ---- the cluster map

    def note_uuid(self, uuid: str) -> None:
        """Note to which cluster the origin leads, as a listing told it; it holds until the cluster itself is asked."""
        self._told_uuid = uuid

    def _known_uuid(self) -> str:
        return self._told_uuid if self._routes.map is None else self._routes.map.uuid

    @property
    def uuid(self) -> str:
        """The cluster's UUID; one request in the life of the origin."""
        return self.cluster_map().uuid

    def cluster_map(self) -> ClusterMap:
        """Return the cluster map, fetched once; later failures of targets refresh it."""
        if self._routes.map is None:
            with self._map_lock:
                if self._routes.map is None:
                    self._load_map()
        assert self._routes.map is not None  # noqa: S101 -- _load_map raises otherwise
        return self._routes.map

    def _load_map(self) -> None:
        with self._engine() as engine:
            run = Run(engine, self._routes, settings=self.settings, sink=HeapSink(), in_flight=1)
            for task in run.results(iter([map_task(self.settings, index=0)])):
                if task.error is not None:
                    raise task.error

    # ---- objects

    def url(self, ref: ObjectRef) -> str:
        """Return the URL at which the proxy serves an object."""
        return self.settings.endpoint + object_path(ref)

    def fetch(self, refs: Iterable[ObjectRef | None], sink: Sink, *, in_flight: int = 16) -> Iterator[Fetched]:
        """Get many objects, `in_flight` at a time, and yield each when it has ended, in the order of ending.

        Failures are yielded as `Fetched.error`; only what the sink raises leaves the iterator. `refs` is read as
        far as there is room, so it may be a generator; a None in it says that there is nothing to begin at the moment:
        it is asked again within 5 ms, and the fetch ends if nothing is under way. Nothing moves while the caller does
        not ask for the next one. Closing the iterator cancels what is under way. CPU: about 0.1 ms per object of
        100 KiB.
        """
        for task in self._results(GET, refs, sink, in_flight):
            head = task.head
            yield Fetched(
                index=task.index,
                ref=task.ref,
                body=None if task.error else task.body,
                size=task.size,
                xxh64=task.xxh64,
                error=task.error,
                attempts=task.attempts,
                target=task.node,
                checksum=head.checksum if head else "",
                checksum_type=head.checksum_type if head else "",
                version=head.version if head else "",
                verified=task.verified,
                took_s=task.took_s,
                ready=task.ready,
            )

    def fetch_one(self, ref: ObjectRef, sink: Sink) -> Fetched:
        """Get one object, or raise its error."""
        (fetched,) = self.fetch((ref,), sink, in_flight=1)
        fetched.result()
        return fetched

    def head(self, refs: Iterable[ObjectRef], *, in_flight: int = 16, skip_missing: bool = False) -> list[ObjectRef]:
        """Return the refs, in their order, with size, checksum and version as the cluster has them now.

        One HEAD per object. Raises the error of the first object that fails; with `skip_missing` those that do not
        exist are left out instead.
        """
        found: dict[int, ObjectRef] = {}
        for task in self._results(HEAD, refs, HeapSink(), in_flight):
            if skip_missing and isinstance(task.error, ObjectNotFoundError):
                continue
            if task.error is not None:
                raise task.error
            if task.head is not None:
                head = task.head
                found[task.index] = replace(task.ref, size=head.length, checksum=head.checksum, version=head.version)
        return [found[index] for index in sorted(found)]

    def _results(self, verb: str, refs: Iterable[ObjectRef | None], sink: Sink, in_flight: int) -> Iterator[Task]:
        tasks = self._tasks(verb, refs)
        try:
            self.cluster_map()
        except OriginError as error:
            for task in tasks:
                if task is None:
                    return
                task.error, task.attempts = error, 0
                yield task
            return
        refused: list[Task] = []
        with self._engine() as engine:
            run = Run(engine, self._routes, settings=self.settings, sink=sink, in_flight=in_flight)
            yield from run.results(_possible(tasks, refused, self.settings.endpoint))
        yield from refused

    def _tasks(self, verb: str, refs: Iterable[ObjectRef | None]) -> Iterator[Task | None]:
        """Make the tasks as they are asked for: of a list in blocks, as owners are cheaper to look up together."""
        budget_s = self.settings.retry.budget_s(self.settings.attempt_s)
        suffix = _HEAD_PROPS if verb == HEAD else ""

        def task(index: int, ref: ObjectRef) -> Task:
            allowed_s = budget_s + max(ref.size, 0) / LEAST_RATE
            return Task(verb, object_path(ref) + suffix, index=index, ref=ref, deadline=allowed_s)

        if not isinstance(refs, list | tuple) or len(refs) < _LEAST_BLOCK:
            indices = count()
            for ref in refs:
                yield None if ref is None else task(next(indices), ref)
            return
        for start in range(0, len(refs), _BLOCK):
            block = [task(start + place, ref) for place, ref in enumerate(refs[start : start + _BLOCK])]
            self._routes.place(block)
            yield from block

    # ---- the listing

    def list_pages(self, bucket: BucketName, prefix: str = "") -> Iterator[list[Entry]]:
        """Yield a bucket's listing page by page: name, size, checksum and version of each object, in its order."""
        from aiscache.origin.control import request_client

        if self._control is None:
            self._control = request_client(self.settings)
        return list_pages(self._control, bucket, prefix=prefix, settings=self.settings)

    # ---- connections

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """Lend an engine to the calling thread; it goes back with its connections open."""
        with self._lock:
            engine = self._idle.pop() if self._idle else None
        if engine is None:
            engine = Engine(self.settings)
        try:
            yield engine
        finally:
            with self._lock:
                keep = len(self._idle) < _IDLE_ENGINES and not engine.forked
                if keep:
                    self._idle.append(engine)
            if not keep:
                engine.close()

    def close(self) -> None:
        """Close the connections; fetches under way in other threads go on. The origin can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
            control, self._control = self._control, None
        for engine in idle:
            engine.close()
        if control is not None:
            control.session_manager.session.close()

    @staticmethod
    def close_all() -> None:
        """Close the connections of every origin of this process."""
        with _registry_lock:
            origins = list(_registry.values())
        for origin in origins:
            origin.close()


def _possible(tasks: Iterator[Task | None], refused: list[Task], endpoint: str) -> Iterator[Task | None]:
    """Pass on the tasks that can be asked for; a name with `..` would name another object on its way."""
    for task in tasks:
        if task is not None and is_cleaned(task.ref.name):
            text = (
                f"object {task.ref.url} does not exist on the cluster at {endpoint}: no AIS name has '..' in its path"
            )
            task.error = ObjectNotFoundError(text, url=task.ref.url, endpoint=endpoint)
            refused.append(task)
        else:
            yield task


def _after_fork() -> None:
    """In a child: new locks, and no engine of the parent."""
    global _registry_lock  # noqa: PLW0603 -- the parent's may be held by a thread that does not exist here
    _registry_lock = threading.Lock()
    for origin in _registry.values():
        origin._disconnect()
        origin._routes.after_fork()


os.register_at_fork(after_in_child=_after_fork)
