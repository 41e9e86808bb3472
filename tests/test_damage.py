"""Files whose end was lost, as after a power loss: `open` heals the cache or starts empty; bytes are never wrong."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiscache.datasets.members import Members
from aiscache.datasets.shard_index import ShardIndex
from aiscache.datasets.tar_members import Member
from aiscache.manifest import ManifestStore
from tests.forks import ForkServer
from tests.healing import LARGE, LISTING, MANY, Patient, damage, draft, fill

FILES = ["segment", "index/data.mdb", "index/lock.mdb", "index/closed", "manifest", "stats", "boot", "format"]
PATTERNS = {"segment": "segments/*.seg", "manifest": "manifests/*.manifest"}
HOW = ["cut", "zeroed", "garbage"]
DAMAGES = int(os.environ.get("DAMAGES", "50"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Path:
    path = tmp_path_factory.mktemp("damage") / "cache"
    fill(path)
    return path


@settings(max_examples=DAMAGES, deadline=None)
@given(
    st.sampled_from(FILES),
    st.integers(1, 2_000_000),
    st.sampled_from(HOW),
    st.booleans(),
    st.integers(0, 9),
)
def test_the_end_of_a_file_is_lost(filled: Path, name: str, lost: int, how: str, restart: bool, seed: int) -> None:
    copy = filled.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(filled, copy)
    files = sorted(copy.glob(PATTERNS.get(name, name)))
    file = files[lost % len(files)]
    size = min(file.stat().st_size, 1 + lost % max(file.stat().st_size, 1))
    damage(file, how, size=size, garbage=random.Random(seed))
    if restart:
        (copy / "boot").write_text("another boot")
    # Without a restart of the machine, what was written is there: other damage than that is found if reads verify.
    with Patient(copy, verify="fill" if restart or name != "segment" else "read") as patient:
        if name == "format" and how == "garbage" and patient.ask("is_refused"):
            return
        present, logged = patient.ask("heal")
        assert patient.wait() == 0
    assert len(logged) <= 1
    if name != "segment":
        assert present == len(MANY) + len(LARGE)


def shard_index(row: int) -> ShardIndex:
    return ShardIndex.of(Member(f"s{number}.{kind}", 512 * number, 100) for number in range(row + 3) for kind in "ab")


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4000), st.sampled_from(HOW), st.integers(0, 9))
def test_the_end_of_an_index_of_shards_is_lost(
    tmp_path_factory: pytest.TempPathFactory, lost: int, how: str, seed: int
) -> None:
    manifest = ManifestStore(str(tmp_path_factory.getbasetemp())).load_or_build(LISTING, draft, max_age_s=1e6)
    right = {row: bytes(shard_index(row).block) for row in range(len(manifest))}
    members = Members(manifest)
    for row in right:
        members.add(row, shard_index(row))
    members.save()
    file = Path(manifest.path.replace(".manifest", ".members"))
    damage(file, how, size=1 + lost % file.stat().st_size, garbage=random.Random(seed))
    members = Members(manifest)
    found = {row: index for row in right if (index := members.get(row)) is not None}
    assert all(bytes(index.block) == right[row] for row, index in found.items())
    assert set(members.missing()) == set(right) - set(found)
    for row in right:
        members.add(row, shard_index(row))
    members.save()
    assert Members(manifest).missing() == []
