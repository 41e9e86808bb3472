"""Another process with a store on the same directory."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiscache.settings import CacheSettings
from aiscache.store import Record, Store, registry, tiers
from tests.remote import Remote, answer_calls
from tests.store.objects import Blob


class Peer(Remote):
    """The near end; `_FarEnd` has what it can be asked."""

    def __init__(self, path: Path | None, capacity: int | str | None = None, *, memory: str | None = None) -> None:
        super().__init__(__name__, str(tiers.SHARED_MEMORY), path, capacity, memory)


class _FarEnd:
    def __init__(self, shared_memory: str, path: Path | None, capacity: int | str | None, memory: str | None) -> None:
        tiers.SHARED_MEMORY = Path(shared_memory)
        self.settings = CacheSettings.resolve(path, capacity=capacity, memory=memory)
        self.used: set[str] = set()
        self.held: dict[str, Any] = {}
        self.store = self._open()

    def _open(self) -> Store:
        return registry.acquire(self.settings, in_use=self._in_use)

    def _in_use(self, records: Sequence[Record]) -> Sequence[bool]:
        return [record.ref.name in self.used for record in records]

    def put(self, blobs: list[Blob]) -> list[bool]:
        return [blob.offer(self.store) for blob in blobs]

    def get(self, blobs: list[Blob]) -> list[bool]:
        return [blob.is_right(self.store) for blob in blobs]

    def hold(self, blob: Blob) -> bool:
        self.held[blob.ref.name] = blob.get(self.store)
        return self.held[blob.ref.name] is not None

    def held_is_right(self, blob: Blob) -> bool:
        return bytes(self.held[blob.ref.name]) == blob.data

    def let_go(self) -> None:
        self.held.clear()
        self.store.trim()
        self.store.trim()

    def reserve(self, blob: Blob) -> bool:
        self.held[blob.ref.name] = blob.reserve(self.store)
        return self.held[blob.ref.name] is not None

    def publish(self, blob: Blob) -> None:
        reservation = self.held.pop(blob.ref.name)
        reservation.fill(blob.data)
        self.store.publish([reservation])

    def sweep(self, names: set[str], force: bool) -> Any:
        return self.store.upkeep.sweep(lambda records: [record.ref.name in names for record in records], force=force)

    def use(self, names: set[str]) -> None:
        self.used = names

    def clear(self) -> None:
        self.store.upkeep.clear()

    def repair(self) -> int:
        return self.store.upkeep.repair()

    def begin_reading(self) -> None:
        """Begin a transaction, as if the processor were taken away in the middle of it: ask for nothing else then."""
        self.reading = self.store._index.read()
        self.reading.__enter__()

    def end_reading(self) -> None:
        self.reading.__exit__(None, None, None)

    def usage(self) -> Any:
        return self.store.upkeep.usage()

    def reopen(self) -> None:
        registry.release(self.store)
        self.store = self._open()

    def close(self) -> None:
        registry.release(self.store)

    def stats(self) -> tuple[Any, Any]:
        return self.store.counters.process(), self.store.counters.machine()

    def count(self, amount: int) -> None:
        self.store.counters.add("misses", amount)


def serve(pipe: socket.socket) -> None:
    answer_calls(pipe, _FarEnd)
