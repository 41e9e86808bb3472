"""What the test process can tell a node, over their private line: each method is one message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Any

import msgspec

from aiscache.devserver import counters
from aiscache.devserver.bodies import FileBody, GeneratedBody
from aiscache.devserver.buckets import Record, properties
from aiscache.devserver.faults import Fault
from aiscache.devserver.generate import Spec
from aiscache.devserver.listener import Listener
from aiscache.devserver.proxy import ProxyApplication
from aiscache.devserver.smap import ClusterMap
from aiscache.devserver.target import TargetApplication

_PLACED = 50_000  # names placed at a time


class Controls:
    """The node's side of the line."""

    def __init__(self, app: ProxyApplication | TargetApplication, listener: Listener) -> None:
        self._app = app
        self._listener = listener

    async def obey(self, message: dict[str, Any], descriptors: list[int]) -> Any:
        """Carry out one message `{"op": ..., ...}` and return the reply."""
        op = getattr(self, f"op_{message.pop('op')}")
        if descriptors:
            message["descriptors"] = descriptors
        reply = op(**message)
        return await reply if asyncio.iscoroutine(reply) else reply

    # The cluster

    def op_smap(self, smap: dict[str, Any]) -> None:
        """Go by a new cluster map."""
        self._app.adopt(msgspec.convert(smap, ClusterMap))

    def op_stop(self) -> None:
        """Refuse connections from now on; objects are kept."""
        self._listener.close()

    async def op_start(self) -> None:
        """Take connections again, on the same port."""
        await self._listener.open()

    def op_close_idle(self) -> None:
        """Close idle connections."""
        self._listener.close_idle()

    # Counts and faults

    def op_counts(self) -> dict[str, int]:
        """What was counted since the last reset."""
        return self._app.counts

    def op_reset(self) -> None:
        """Count from zero."""
        self._app.counts = counters.zero()

    def op_delay(self, delay_s: float) -> None:
        """Answer every GET of an object this much later."""
        self._app.delay_s = delay_s

    def op_fault(self, fault: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Obey a fault."""
        self._app.faults.add(msgspec.convert(fault, Fault), descriptors[0] if descriptors else None)

    def op_clear_faults(self) -> None:
        """Obey no fault any more."""
        self._app.faults.clear()

    def op_etl(self, name: str, kind: str) -> None:
        """Offer a transform by name (a target)."""
        self._target.etls[name] = kind

    # Buckets and objects

    def op_buckets(self) -> dict[str, dict[str, Any]]:
        """The properties of all buckets (the proxy)."""
        return self._proxy.buckets

    def op_new_bucket(self, path: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Make a bucket (the proxy), unless there is one; its properties."""
        known = self._proxy.buckets
        return known.setdefault(path, properties(settings, number=len(known) + 1))

    def op_bucket(self, path: str, props: dict[str, Any], read_only: bool = False) -> None:
        """Hold a share of a bucket (a target)."""
        self._target.add_bucket(path, props, read_only=read_only)

    def op_keep_buckets(self, paths: list[str]) -> None:
        """Drop all buckets but these: a target that comes back learns what was destroyed meanwhile."""
        held = self._target.buckets
        for path in set(held) - set(paths):
            del held[path]

    def op_put(self, path: str, objects: list[tuple[str, bytes]]) -> None:
        """Put objects (a target that owns them)."""
        bucket = self._target.buckets[path]
        for name, data in objects:
            bucket.put(name, self._target.keep(data))

    def op_generate(self, path: str, spec: dict[str, Any]) -> None:
        """Hold this target's share of a generated bucket; its bytes are made when they are read."""
        made = msgspec.convert(spec, Spec)
        bucket = self._target.buckets[path]
        now_ns, version = time.time_ns(), int(bucket.versioning)
        for start in range(0, made.count, _PLACED):
            names = [made.name(number) for number in range(start, min(start + _PLACED, made.count))]
            for name in self._owned(path, names):
                body = GeneratedBody(name, made.size(name), made.seed)
                bucket.insert(Record(name, body, version, now_ns))

    def op_serve(self, path: str, directory: str) -> int:
        """Hold this target's share of the files under a directory; how many. Their checksums are computed on demand."""
        bucket = self._target.buckets[path]
        names = list(_files(directory))
        for name in self._owned(path, names):
            with contextlib.suppress(OSError):  # gone since the scan
                body = FileBody(os.path.join(directory, name), 0).stat()
                bucket.insert(Record(name, body, 1, body.mtime_ns))
        return len(bucket.records)

    def op_export(self, path: str) -> list[tuple[str, bytes, int, int]]:
        """All objects held of a bucket: name, bytes, version, time (for a rebalance)."""
        records = self._target.buckets[path].records.values()
        return [(r.name, r.body.read(0, r.body.size), r.version, r.atime_ns) for r in records]

    def op_import(self, path: str, objects: list[tuple[str, bytes, int, int]]) -> None:
        """Take in objects from other targets, where they are newer than what is held."""
        bucket = self._target.buckets[path]
        for name, data, version, time_ns in objects:
            held = bucket.records.get(name)
            if held is None or held.version < version:
                bucket.insert(Record(name, self._target.keep(data), version, time_ns))

    def _owned(self, path: str, names: list[str]) -> list[str]:
        owned = self._target.placement.owned_by(self._target.me.id, [path + name for name in names])
        return [name for name, mine in zip(names, owned, strict=True) if mine]

    @property
    def _target(self) -> TargetApplication:
        assert isinstance(self._app, TargetApplication)  # noqa: S101 -- the test process knows which node it talks to
        return self._app

    @property
    def _proxy(self) -> ProxyApplication:
        assert isinstance(self._app, ProxyApplication)  # noqa: S101
        return self._app


def _files(directory: str) -> list[str]:
    """The files under a directory, as object names: paths relative to it. Links to directories aren't followed."""
    found = []
    for folder, _, files in os.walk(directory):
        found += [os.path.relpath(os.path.join(folder, file), directory) for file in files]
    return sorted(found)
