"""`aiscache ls` tells what is in a cache, as it finds it, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from aiscache.cache import Cache
from aiscache.store.tiers import memory_tier
from tests.cli.conftest import OBJECT_BYTES, OBJECTS, ref
from tests.cli.program import COMMAND, TIMEOUT_S, environment, run


def lines(*arguments: str | Path) -> list[dict[str, object]]:
    done = run("ls", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_buckets_are_counted_the_largest_first(filled: Cache) -> None:
    filled.put(replace(ref(1), bucket="other", provider="aws", size=7), b"1234567")
    path = str(filled.settings.path)
    one, two = lines("--cache", path)
    assert (one["bucket"], one["objects"], one["bytes"]) == ("ais://bucket", OBJECTS, OBJECTS * OBJECT_BYTES)
    assert (two["bucket"], two["objects"], two["bytes"]) == ("aws://other", 1, 7)
    title, first, _ = run("ls", "--cache", path).stdout.splitlines()
    assert title.split() == ["BUCKET", "OBJECTS", "SIZE", "SHARE", "UNUSED", "FOR"]
    assert first.split()[:5] == ["ais://bucket", "10", "500.0", "kB", "100.0%"]


def test_objects_of_a_bucket_or_of_a_prefix(filled: Cache) -> None:
    odd = replace(ref(0), name='1/né "\n', size=3)
    filled.put(odd, b"abc")
    path = str(filled.settings.path)
    assert {one["name"] for one in lines("ais://bucket", "--cache", path)} == {*map(str, range(OBJECTS)), odd.name}
    assert {one["name"] for one in lines("ais://bucket/1", "--cache", path)} == {"1", odd.name}
    assert lines("s3://bucket", "--cache", path) == []
    (found,) = lines("ais://bucket/1/", "--cache", path)
    assert (found["url"], found["size"], found["version"]) == (odd.url, 3, f"{odd.digest:016x}")
    assert abs(float(str(found["used_at"])) - time.time()) < 60
    shown = run("ls", "ais://bucket/3", "--cache", path).stdout.splitlines()
    assert shown[1].startswith("   50.0 kB  ")
    assert shown[1].endswith("ais://bucket/3")


def test_what_was_replaced_or_removed_is_not_listed(filled: Cache) -> None:
    filled.put(replace(ref(0), version="2"), bytes(OBJECT_BYTES))
    filled.evict("bucket", "3")
    found = lines("ais://bucket", "--cache", str(filled.settings.path))
    assert len(found) == OBJECTS - 1
    assert {one["version"] for one in found if one["name"] == "0"} == {f"{replace(ref(0), version='2').digest:016x}"}


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    with Cache(tmp_path, capacity="20MB") as cache:
        for number in range(3000):
            cache.put(replace(ref(number), size=1), b"x")
    with subprocess.Popen(
        [*COMMAND, "ls", "ais://bucket", "--cache", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"OBJECT" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=TIMEOUT_S) == 1
        assert process.stderr.read() == b""


def test_both_tiers_are_listed(tmp_path: Path) -> None:
    with Cache(tmp_path, capacity="20MB", memory="2MB") as cache:
        held = []
        for number in range(60):
            cache.put(ref(number), bytes(OBJECT_BYTES))
            held.append(cache.read(ref(number)))  # in use: no room is made of it in memory
        tiers = {str(one["name"]): one["tier"] for one in lines("ais://bucket", "--cache", tmp_path)}
        del held
        cache.clear()
    memory_tier(tmp_path).rmdir()
    assert sorted(map(int, tiers)) == list(range(60))
    assert (tiers["0"], tiers["59"]) == ("memory", "disk")


def test_an_empty_cache_and_one_whose_index_is_not_made_yet(filled: Cache) -> None:
    filled.clear()
    path = Path(str(filled.settings.path))
    assert "(the cache is empty)" in run("ls", "--cache", path).stdout
    filled.close()
    (path / "boot").write_text("another boot")
    done = run("ls", "--cache", path)
    assert done.returncode == 1
    assert "run: aiscache repair" in done.stderr
    assert run("repair", "--cache", path).returncode == 0
    assert run("ls", "--cache", path).returncode == 0
