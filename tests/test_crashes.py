"""A process kills itself at its n-th primitive step, for every n, in each thing that it can do with a cache.

The next one finds right bytes, all that was put before, and gets all space back.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import xxhash

from aiscache import Cache
from aiscache.devserver import DevCluster
from aiscache.keys import ObjectRef
from aiscache.origin import Origin, OriginSettings
from aiscache.store import registry
from aiscache.store.index import STAGING
from aiscache.store.tiers import user_memory_directory
from tests.actor import RIGHT, Actor, Elsewhere, Version, bytes_on_disk
from tests.remote import PeerDiedError
from tests.steps import STEPS

CAPACITY, MEMORY = 4_000_000, 1_200_000
COUNT, SIZE = 9, 300_000  # segments of 1 MiB: three of them fit into one
OURS = r"format|CACHEDIR\.TAG|boot|leases|flights|stats|index(/(data\.mdb|lock\.mdb|closed))?"
OURS += r"|segments(/[0-9a-f]{16}\.seg)?|staging|manifests(/(listings|[0-9a-f-]{65}\.manifest))?"

Act = tuple[Any, ...]


@pytest.mark.usefixtures("fork_server")
class Stage:
    """A bucket, a cache, and who is to die."""

    def __init__(self, cluster: DevCluster, bucket: str, tmp_path: Path, shared_memory: Path) -> None:
        self.cluster, self.bucket, self.shared_memory, self.tmp_path = cluster, bucket, shared_memory, tmp_path
        self.origin = Origin.of(OriginSettings(endpoint=cluster.endpoint))
        self.versions: list[tuple[Version, bytes]] = []
        self.overwrite(range(COUNT))

    def overwrite(self, numbers: range) -> None:
        """Put new versions of some objects on the cluster."""
        objects = {f"o{number}": random.randbytes(SIZE) for number in numbers}
        self.cluster.put_many(self.bucket, objects)
        place = {"cluster": self.origin.uuid, "provider": "ais", "bucket": self.bucket}
        refs = self.origin.head([ObjectRef(name=name, **place) for name in objects])
        new = {ref.name: (Version(ref, xxhash.xxh3_64_intdigest(objects[ref.name])), objects[ref.name]) for ref in refs}
        self.versions = [new.pop(version.ref.name, (version, data)) for version, data in self.versions]
        self.versions += new.values()


@dataclass(frozen=True)
class Scenario:
    """What is done: first by one who lives, then by the one who dies. `keeps` tells whether all that was put stays."""

    before: list[Act] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    keeps: bool = True
    unnamed: bool = False
    options: dict[str, Any] = field(default_factory=lambda: {"capacity": CAPACITY})
    prepare: Callable[[Path], None] = lambda path: None


def puts(*numbers: int) -> list[Act]:
    return [("put", number) for number in numbers]


def restart(path: Path) -> None:
    (path / "boot").write_text("another boot")


def delete_index(path: Path) -> None:
    shutil.rmtree(path / "index")


BOTH = {"capacity": CAPACITY, "memory": MEMORY}

SCENARIOS = {
    "writing": Scenario(acts=[*puts(*range(5)), ("look",), ("close",)]),
    "fetching": Scenario(acts=[("read",), ("read",), ("close",)]),
    "two tiers": Scenario(acts=[*puts(*range(7)), ("close",)], options=BOTH),
    "unnamed": Scenario(acts=[*puts(0, 1), ("close",)], unnamed=True, keeps=False),
    "making room": Scenario(
        puts(*range(COUNT)), [*puts(*range(COUNT)), ("close",)], options={"capacity": 2_000_000}, keeps=False
    ),
    "replacing": Scenario(puts(*range(6)), [("overwrite",), *puts(0, 3), ("tidy",), ("close",)], keeps=False),
    "evicting": Scenario(puts(*range(7)), [("evict", "o4", False), ("evict", "o1", True), ("clear",)], keeps=False),
    "staging": Scenario(puts(0), [("stage", 1), ("stage", 2), ("unstage",), ("stage", 3), ("close",)]),
    "listing": Scenario([("list",)], [("list",), ("overwrite",), ("unlist",), ("list",), ("close",)]),
    "repairing": Scenario(puts(*range(4)), [("verify",), ("repair",), ("close",)]),
    "opening after a restart": Scenario(puts(*range(4)), [("look",), ("verify",), ("close",)], prepare=restart),
    "opening without an index": Scenario(puts(*range(4)), [("look",), ("close",)], prepare=delete_index),
    "adopting": Scenario([*puts(*range(4)), ("stage", 5), ("stage", 6)], [("look",), *puts(5), ("close",)]),
}


class Run:
    """One scenario, again and again."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self.stage, self.scenario = stage, scenario
        self.path = registry.unnamed_path() if scenario.unnamed else stage.tmp_path / "cache"
        self.arguments = (
            str(stage.shared_memory),
            stage.cluster.endpoint,
            None if scenario.unnamed else str(self.path),
            scenario.options,
        )
        self.put: set[int] = set()

    def do(self, actor: Elsewhere, act: Act) -> None:
        verb, *arguments = act
        versions = [version for version, _ in self.stage.versions]
        if verb == "overwrite":
            self.stage.overwrite(range(0, COUNT, 3))
            self.put -= set(range(0, COUNT, 3))
        elif verb == "tidy":
            actor.ask("evict", "nothing", False)
        elif verb in ("put", "stage"):
            kept = actor.ask(verb, *self.stage.versions[arguments[0]])
            self.put |= {arguments[0]} if kept else set()
        elif verb == "list":
            actor.ask(verb, self.stage.bucket, versions)
        elif verb in ("read", "look"):
            assert actor.ask(verb, versions) in (None, [RIGHT] * COUNT)
            self.put |= set(range(COUNT)) if verb == "read" else set()
        else:
            actor.ask(verb, *arguments)

    def once(self, *, step: str | None = None, after: int = -1) -> list[str] | None:
        """Go through the scenario; return the steps if the one who was to die did not."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(user_memory_directory(), ignore_errors=True)
        self.put.clear()
        if self.scenario.before:
            before = Elsewhere(*self.arguments)
            for act in self.scenario.before:
                self.do(before, act)
            before.kill()  # what it leaves is for the next one to seal
            self.scenario.prepare(self.path)
        actor = Elsewhere(*self.arguments)
        try:
            actor.ask("trace")
            actor.ask("die_at", step, after)
            for act in self.scenario.acts:
                self.do(actor, act)
            return list(actor.ask("trace"))
        except PeerDiedError:
            return None
        finally:
            actor.kill()

    @cached_property
    def steps(self) -> list[str]:
        steps = self.once()
        assert steps is not None
        return steps

    def check(self) -> None:
        """See what the next one finds."""
        versions = [version for version, _ in self.stage.versions]
        next_one = Actor(*self.arguments)
        next_one.open()
        with next_one.cache as cache:
            if self.scenario.keeps:
                assert {number for number, version in enumerate(versions) if cache.contains(version.ref)} >= self.put
            next_one.look(versions)
            assert cache.verify() == []
            next_one.list(self.stage.bucket, versions)
            next_one.evict("nothing", force=False)
            self.check_books(cache)
            for version, data in self.stage.versions[:4]:
                cache.put(version.ref, data)
            assert next_one.read(versions) == [RIGHT] * COUNT
            cache.repair()
            next_one.look(versions)
            next_one.clear()
            self.check_books(cache)
            assert not list(self.path.rglob("*.seg"))
            assert bytes_on_disk(self.path) < 300_000
            strangers = [found for found in self.path.rglob("*") if not self.is_ours(found)]
            assert strangers == []
        next_one.end()
        assert not list(self.stage.shared_memory.rglob("*.seg"))
        assert self.path.exists() is not self.scenario.unnamed

    def is_ours(self, found: Path) -> bool:
        return re.fullmatch(OURS, str(found.relative_to(self.path))) is not None

    def check_books(self, cache: Cache) -> None:
        """What is reserved is what is on disk, tier by tier, and nothing is staged."""
        store = cache.store()
        assert store is not None
        for number, (reserved, capacity) in store.upkeep.usage().items():
            files = store.tiers[number].path.glob("*.seg")
            assert sum(file.stat().st_blocks * 512 for file in files) == reserved <= capacity
        assert not list(store.tiers[STAGING].path.glob("*"))


@pytest.fixture
def stage(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, private_shared_memory: Path, fork_server: object
) -> Iterator[Stage]:
    yield Stage(dev_cluster, bucket_name, tmp_path, private_shared_memory)
    Origin.close_all()


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_when_a_step_first_comes(stage: Stage, name: str) -> None:
    run = Run(stage, SCENARIOS[name])
    for step in dict.fromkeys(run.steps):
        assert run.once(step=step, after=0) is None
        run.check()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_step(stage: Stage, name: str) -> None:
    run = Run(stage, SCENARIOS[name])
    number, survived = 0, None
    while survived is None:
        survived = run.once(after=number)
        run.check()
        number += 1
    assert number > len(run.steps) // 2


def test_every_step_is_tried(stage: Stage) -> None:
    tried = {step for scenario in SCENARIOS.values() for step in Run(stage, scenario).steps}
    assert sorted(set(STEPS) - tried) == []
