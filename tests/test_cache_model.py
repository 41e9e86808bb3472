"""Random acts of three processes on one cache, against a dict of what the cluster holds.

They read, put, list, stage, evict, clear, verify, repair, open and close, together and in threads, and are killed at
any step. A miss is always allowed, and shows as a fetch. A wrong byte, more bytes than the capacity, an error other
than "that version is gone" or a hang never.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
import xxhash
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from aiscache.devserver import DevCluster
from aiscache.keys import ObjectRef
from aiscache.origin import Origin, OriginSettings
from aiscache.store import registry
from aiscache.store.tiers import user_memory_directory
from tests.actor import NOT_THIS_VERSION, RIGHT, STAGING_BYTES, Actor, Elsewhere, Version, bytes_on_disk
from tests.models import MILLION, Model, run_model
from tests.remote import PeerDiedError
from tests.steps import STEPS

CAPACITY, MEMORY = 3_000_000, 1_500_000

names = st.sampled_from([f"{folder}/o{number}" for folder in "ab" for number in range(5)])
some_names = st.lists(names, min_size=1, max_size=6, unique=True)
sizes = st.sampled_from([0, 1, 64, 5000, 40_000, 40_000, 150_000, 400_000, 3_500_000])
whos = st.sampled_from([0, 1, 2])


class Users(Model):
    cluster: ClassVar[DevCluster]
    bucket: ClassVar[str]
    shared_memory: ClassVar[Path]

    @initialize(place=st.sampled_from(["memory", "disk", "both", "unnamed"]))
    def begin(self, place: str) -> None:
        self.held: dict[str, tuple[Version, bytes]] = {}  # what the cluster holds
        self.old: list[Version] = []
        self.number = 0
        self.home = Path(tempfile.mkdtemp(prefix="model-", dir=None if place in ("disk", "both") else "/dev/shm"))
        self.path = registry.unnamed_path() if place == "unnamed" else self.home / "cache"
        options: dict[str, Any] = {"capacity": CAPACITY}
        if place == "both":
            options["memory"] = MEMORY
        self.arguments = (
            str(self.shared_memory),
            self.cluster.endpoint,
            None if place == "unnamed" else str(self.path),
            options,
        )
        self.staged = False
        self.origin = Origin.of(OriginSettings(endpoint=self.cluster.endpoint))
        self.actors: list[Any] = [Actor(*self.arguments), None, None]
        self.actors[0].open()

    def teardown(self) -> None:
        self.kill(1)
        self.kill(2)
        self.actors[0].open()  # of the unnamed cache, the next one removes what killed ones left
        self.actors[0].end()
        assert self.path.exists() is self.path.is_relative_to(self.home)
        shutil.rmtree(self.home)
        shutil.rmtree(user_memory_directory(), ignore_errors=True)

    # ---- asking

    def ask(self, who: int, verb: str, *arguments: Any) -> Any:
        """Have one of them do something; the answer is None if it was told to die somewhere, and does."""
        if who == 0:
            return getattr(self.actors[0], verb)(*arguments)
        self.tell(who, verb, *arguments)
        return self.answer(who)

    def tell(self, who: int, verb: str, *arguments: Any) -> None:
        if self.actors[who] is None:
            self.actors[who] = Elsewhere(*self.arguments)
        self.actors[who].tell(verb, *arguments)

    def answer(self, who: int) -> Any:
        try:
            return self.actors[who].answer()
        except PeerDiedError:
            self.kill(who)
            return None

    def together(self, acts: list[tuple[Any, ...]]) -> list[Any]:
        """Have all of them do something at once."""
        for who in (1, 2):
            self.tell(who, *acts[who])
        return [self.ask(0, *acts[0]), self.answer(1), self.answer(2)]

    def current(self, chosen: list[str]) -> list[Version]:
        return [self.held[name][0] for name in chosen if name in self.held]

    # ---- the cluster

    @rule(name=names, size=sizes)
    def overwrite(self, name: str, size: int) -> None:
        self.number += 1
        data = random.Random(self.number).randbytes(size)
        self.cluster.put_many(self.bucket, {name: data})
        named = ObjectRef(cluster=self.origin.uuid, provider="ais", bucket=self.bucket, name=name)
        if name in self.held:
            self.old.append(self.held[name][0])
        self.held[name] = Version(self.origin.head([named])[0], xxhash.xxh3_64_intdigest(data)), data

    # ---- reading

    @rule(who=whos, chosen=some_names)
    def read(self, who: int, chosen: list[str]) -> None:
        versions = self.current(chosen)
        assert self.ask(who, "read", versions) in (None, [RIGHT] * len(versions))

    @rule(chosen=st.tuples(some_names, some_names, some_names))
    def read_at_once(self, chosen: tuple[list[str], ...]) -> None:
        wanted = [self.current(names) for names in chosen]
        for versions, answer in zip(wanted, self.together([("read", v) for v in wanted]), strict=True):
            assert answer in (None, [RIGHT] * len(versions))

    @rule(who=whos, chosen=some_names)
    def read_in_threads(self, who: int, chosen: list[str]) -> None:
        self.ask(who, "read_in_threads", self.current(chosen))

    @precondition(lambda self: self.old)
    @rule(who=whos, data=st.data())
    def read_an_old_version(self, who: int, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(self.old))
        assert self.ask(who, "read", [version]) in (None, [RIGHT], *([name] for name in NOT_THIS_VERSION))

    @precondition(lambda self: self.held)
    @rule(who=whos, data=st.data())
    def read_what_comes_damaged_once(self, who: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.cluster.fault(self.bucket, name, flip_byte_at=0, count=1)
        try:
            assert self.ask(who, "read", self.current([name])) in (None, [RIGHT])
        finally:
            self.cluster.clear_faults()

    @rule(who=whos)
    def look(self, who: int) -> None:
        self.ask(who, "look", self.old + self.current(list(self.held)))

    @rule(who=whos, name=names)
    def hold(self, who: int, name: str) -> None:
        if name in self.held:
            self.ask(who, "hold", self.held[name][0])

    @rule(who=whos)
    def let_go(self, who: int) -> None:
        self.ask(who, "let_go")

    # ---- changing

    @rule(who=whos, name=names)
    def put(self, who: int, name: str) -> None:
        if name in self.held:
            self.ask(who, "put", *self.held[name])

    @rule(who=whos, prefix=st.sampled_from(["", "a/", "b/", "a/o1", "z"]), force=st.booleans())
    def evict(self, who: int, prefix: str, force: bool) -> None:
        self.ask(who, "evict", prefix, force)

    @rule(who=whos)
    def clear(self, who: int) -> None:
        self.ask(who, "clear")

    @rule(who=whos, verb=st.sampled_from(["verify", "repair", "stats"]))
    def care(self, who: int, verb: str) -> None:
        self.ask(who, verb)

    @rule(
        chosen=some_names,
        verbs=st.lists(
            st.sampled_from([("clear",), ("evict", "a/", True), ("evict", "", False), ("repair",), ("verify",)]),
            min_size=2,
            max_size=2,
        ),
    )
    def read_while_others_change(self, chosen: list[str], verbs: list[tuple[Any, ...]]) -> None:
        versions = self.current(chosen)
        assert self.together([("read", versions), *verbs])[0] == [RIGHT] * len(versions)

    # ---- handles and processes

    @rule(who=whos, verb=st.sampled_from(["open", "open_by_pickle", "close_one", "close"]))
    def open_or_close(self, who: int, verb: str) -> None:
        self.ask(who, verb)

    @rule(who=st.sampled_from([1, 2]))
    def kill(self, who: int) -> None:
        if self.actors[who] is not None:
            self.actors[who].kill()
            self.actors[who] = None

    @rule(who=st.sampled_from([1, 2]), step=st.sampled_from(sorted(STEPS)), after=st.integers(0, 3))
    def die_at_some_later_step(self, who: int, step: str, after: int) -> None:
        self.ask(who, "die_at", step, after)

    @rule(how=st.sampled_from(["cut", "restart", "gone"]))
    def lose_the_index(self, how: str) -> None:
        if not self.path.is_relative_to(self.home):
            return
        self.kill(1)
        self.kill(2)
        self.actors[0].close()
        if how == "cut":
            os.truncate(self.path / "index" / "data.mdb", 0)
        elif how == "restart":
            (self.path / "boot").write_text("another boot")
        else:
            shutil.rmtree(self.path / "index")
        self.actors[0].open()

    # ---- what else lies in a cache

    @rule(who=whos)
    def list(self, who: int) -> None:
        if self.held:
            self.ask(who, "list", self.bucket, self.current(sorted(self.held)))

    @rule(who=whos)
    def unlist(self, who: int) -> None:
        self.ask(who, "unlist")

    @rule(who=whos, name=names)
    def stage(self, who: int, name: str) -> None:
        if name in self.held:
            self.staged = True
            self.ask(who, "stage", *self.held[name])

    @rule(who=whos)
    def unstage(self, who: int) -> None:
        self.ask(who, "unstage")

    # ---- what holds at every moment

    @invariant()
    def what_is_held_is_right(self) -> None:
        self.actors[0].check_held()

    @invariant()
    def within_the_capacity(self) -> None:
        if self.path.exists():
            budget = 3 * STAGING_BYTES if self.staged else 0
            assert bytes_on_disk(self.path) <= CAPACITY + budget
        for tier in user_memory_directory().glob("tier-*"):
            assert bytes_on_disk(tier) <= MEMORY


def run(cluster: DevCluster, bucket: str, shared_memory: Path, *, steps: int) -> None:
    Users.cluster, Users.shared_memory = cluster, shared_memory
    runs = itertools.count()

    def users() -> Users:
        Users.bucket = f"{bucket}-{next(runs)}"
        return Users()

    run_model(users, steps=steps)


@pytest.mark.usefixtures("fork_server")
def test_users_of_one_cache(dev_cluster: DevCluster, bucket_name: str, private_shared_memory: Path) -> None:
    run(dev_cluster, bucket_name, private_shared_memory, steps=4000)


@pytest.mark.stress
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("fork_server")
def test_users_of_one_cache_for_long(dev_cluster: DevCluster, bucket_name: str, private_shared_memory: Path) -> None:
    run(dev_cluster, bucket_name, private_shared_memory, steps=MILLION)
