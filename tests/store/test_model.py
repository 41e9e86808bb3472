"""Random acts of two processes on one cache, one of which is killed now and then, against a dict.

A miss is always allowed. A wrong byte, more bytes on disk than the capacity, an error or a hang never.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from aiscache.settings import CacheSettings
from aiscache.store import Record, Reservation, registry
from aiscache.view import View
from tests.models import MILLION, Model, run_model
from tests.remote import PeerDiedError
from tests.steps import STEPS
from tests.store.objects import Blob, disk_usage, segment_files
from tests.store.peer import Peer

CAPACITY = 3_000_000

names = st.sampled_from([f"o{number}" for number in range(12)])
sizes = st.sampled_from([0, 1, 63, 64, 4096, 30_000, 100_000, 400_000, 1_500_000, 4_000_000])


class Cache(Model):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="store-model-", dir="/dev/shm")) / "cache"
        self.versions: dict[str, Blob] = {}
        self.reservations: list[tuple[Blob, Reservation]] = []
        self.views: list[tuple[Blob, View]] = []
        self.used: set[str] = set()
        self.number = 0
        self.settings = CacheSettings.resolve(self.path, capacity=CAPACITY)
        self.store = registry.acquire(self.settings, in_use=self.in_use)
        self.peer = Peer(self.path)

    def in_use(self, records: list[Record]) -> list[bool]:
        return [record.ref.name in self.used for record in records]

    def teardown(self) -> None:
        registry.release(self.store)
        self.peer.kill()
        self.views.clear()
        self.reservations.clear()
        shutil.rmtree(self.path.parent)

    def new_version(self, name: str, size: int) -> Blob:
        self.number += 1
        self.versions[name] = Blob(name, size=size, version=self.number)
        return self.versions[name]

    def ask(self, verb: str, *arguments: object) -> object:
        """Ask the other process; if it was told to die somewhere and does, another one takes its place."""
        try:
            return self.peer.ask(verb, *arguments)
        except PeerDiedError:
            self.peer.kill()
            self.peer = Peer(self.path)
            return None

    @initialize()
    def begin(self) -> None:
        self.used = {"o1", "o2", "o3"}
        self.ask("use", self.used)

    @rule(name=names, size=sizes)
    def put(self, name: str, size: int) -> None:
        blob = self.new_version(name, size)
        blob.offer(self.store)

    @rule(name=names, size=sizes)
    def put_there(self, name: str, size: int) -> None:
        self.ask("put", [self.new_version(name, size)])

    @rule(many=st.lists(st.tuples(names, sizes), min_size=2, max_size=5))
    def put_many_at_once(self, many: list[tuple[str, int]]) -> None:
        reservations = []
        for name, size in many:
            blob = self.new_version(name, size)
            reservation = blob.reserve(self.store)
            if reservation is not None:
                reservation.fill(blob.data)
                reservations.append((blob, reservation))
        for view, (blob, _) in zip(self.store.publish([r for _, r in reservations]), reservations, strict=True):
            assert bytes(view) == blob.data

    @rule(name=names)
    def put_the_same_again(self, name: str) -> None:
        if name in self.versions:
            self.versions[name].offer(self.store)

    @rule(name=names, size=sizes)
    def reserve(self, name: str, size: int) -> None:
        blob = self.new_version(name, size)
        reservation = blob.reserve(self.store)
        if reservation is not None:
            self.reservations.append((blob, reservation))

    @precondition(lambda self: self.reservations)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        blob, reservation = self.reservations.pop(data.draw(st.integers(0, len(self.reservations) - 1)))
        reservation.fill(blob.data)
        (view,) = self.store.publish([reservation])
        assert bytes(view) == blob.data
        self.versions[blob.ref.name] = blob

    @precondition(lambda self: self.reservations)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        _, reservation = self.reservations.pop(data.draw(st.integers(0, len(self.reservations) - 1)))
        if reservation.length:
            reservation.write([b"x"])
        self.store.give_up(reservation)

    @rule(name=names)
    def reserve_there_and_publish_or_not(self, name: str) -> None:
        blob = self.new_version(name, 20_000)
        if self.ask("reserve", blob) and self.number % 2:
            self.ask("publish", blob)

    @rule()
    def get_many(self) -> None:
        many = list(self.versions.values())
        views, _ = self.store.get_many([blob.key for blob in many], [blob.digest for blob in many])
        for view, blob in zip(views, many, strict=True):
            assert view is None or bytes(view) == blob.data

    @rule()
    def get_there(self) -> None:
        self.ask("get", list(self.versions.values()))

    @rule(name=names)
    def hold(self, name: str) -> None:
        if name in self.versions and len(self.views) < 4:
            view = self.versions[name].get(self.store)
            if view is not None:
                self.views.append((self.versions[name], view))

    @rule()
    def let_go(self) -> None:
        self.views.clear()

    @rule(name=names)
    def hold_there(self, name: str) -> None:
        if name in self.versions and self.ask("hold", self.versions[name]):
            assert self.ask("held_is_right", self.versions[name])

    @rule()
    def let_go_there(self) -> None:
        self.ask("let_go")

    @rule(chosen=st.sets(names), force=st.booleans())
    def sweep(self, chosen: set[str], force: bool) -> None:
        self.store.upkeep.sweep(lambda records: [record.ref.name in chosen for record in records], force=force)

    @rule(chosen=st.sets(names), force=st.booleans())
    def sweep_there(self, chosen: set[str], force: bool) -> None:
        self.ask("sweep", chosen, force)

    @rule(used=st.sets(names, max_size=6))
    def use(self, used: set[str]) -> None:
        self.used = used
        self.ask("use", used)

    @rule()
    def clear(self) -> None:
        self.store.upkeep.clear()
        assert self.store.upkeep.count() == 0

    @rule()
    def clear_there(self) -> None:
        self.ask("clear")

    @rule()
    def trim(self) -> None:
        self.store.trim()

    @rule()
    def verify(self) -> None:
        assert self.store.upkeep.verify() == []

    @rule()
    def repair(self) -> None:
        self.store.upkeep.repair()

    @rule()
    def repair_there(self) -> None:
        self.ask("repair")

    @rule()
    def reopen(self) -> None:
        self.reservations.clear()
        registry.release(self.store)
        self.store = registry.acquire(self.settings, in_use=self.in_use)

    @rule()
    def reopen_there(self) -> None:
        self.ask("reopen")

    @rule()
    def kill(self) -> None:
        self.peer.kill()
        self.peer = Peer(self.path)
        self.ask("use", self.used)

    @rule(step=st.sampled_from(sorted(STEPS)), after=st.integers(0, 3))
    def kill_at_some_later_step(self, step: str, after: int) -> None:
        self.ask("die_at", step, after)

    @precondition(lambda self: not self.reservations)
    @rule()
    def lose_the_index(self) -> None:
        self.peer.kill()
        registry.release(self.store)
        os.truncate(self.path / "index" / "data.mdb", 0)
        self.store = registry.acquire(self.settings, in_use=self.in_use)
        self.peer = Peer(self.path)

    @invariant()
    def what_is_held_is_right(self) -> None:
        for blob, view in self.views:
            assert bytes(view) == blob.data

    @invariant()
    def what_is_here_is_right(self) -> None:
        for blob in self.versions.values():
            blob.is_right(self.store)

    @invariant()
    def within_the_capacity(self) -> None:
        assert disk_usage(self.path) <= CAPACITY

    @invariant()
    def the_books_cover_the_disk(self) -> None:
        reserved = sum(used for used, _ in self.store.upkeep.usage().values())
        assert reserved >= sum(file.stat().st_blocks * 512 for file in segment_files(self.path))


def test_two_processes_with_one_store() -> None:
    run_model(Cache, steps=6000)


@pytest.mark.stress
@pytest.mark.timeout(0)
def test_two_processes_with_one_store_for_long() -> None:
    run_model(Cache, steps=MILLION)
