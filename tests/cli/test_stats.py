"""`aiscache stats` and `aiscache path` tell, and change nothing."""

from __future__ import annotations

import json
import os
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aiscache.cache import Cache
from aiscache.cli import main
from aiscache.cli.choice import Choice
from aiscache.cli.look import look_at, unnamed_in_use
from aiscache.cli.prometheus import exposition
from aiscache.cli.shares import shares_in
from aiscache.keys import pack_identity
from aiscache.stats import COUNTERS, MEANINGS
from aiscache.store.registry import unnamed_path
from tests.cli.conftest import OBJECT_BYTES, OBJECTS, ref
from tests.cli.program import Running, run, run_in_terminal

KEYS = {"path", "named", "exists", "file_system", "index_trusted", "objects", "segments", "index_bytes", "tiers"}
KEYS |= {"buckets", "buckets_exact", "users", "counters"}


def stats(*arguments: str | Path, **env: str) -> dict[str, object]:
    done = run("stats", "--json", *arguments, **env)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert set(told) == KEYS
    assert set(COUNTERS) < set(told["counters"])
    assert isinstance(told, dict)
    return told


def test_what_is_in_a_running_cache(filled: Cache) -> None:
    views = filled.read_many([ref(number) for number in range(4)])
    path = Path(str(filled.settings.path))
    told = stats("--cache", path)
    assert (told["objects"], told["segments"]) == (OBJECTS, 1)
    assert told["users"] == [{"pid": os.getpid(), "command": told["users"][0]["command"]}]  # type: ignore[index]
    (tier,) = told["tiers"].values()  # type: ignore[attr-defined]
    assert tier["capacity_bytes"] == 20_000_000
    assert OBJECTS * OBJECT_BYTES < tier["used_bytes"] <= 20_000_000
    assert told["counters"]["hits"] == len(views)  # type: ignore[index]


def test_which_buckets_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(tmp_path, capacity="20MB") as cache:
        for number in range(400):
            cache.put(replace(ref(number), bucket="most" if number % 4 else "least", size=1000), bytes(1000))
    told = stats("--cache", tmp_path)
    assert told["buckets"] == [
        {"bucket": "ais://most", "objects": 0.75, "bytes": 0.75},
        {"bucket": "ais://least", "objects": 0.25, "bytes": 0.25},
    ]
    assert told["buckets_exact"] is True
    assert "ais://most   75% of the bytes  75% of the objects" in run("stats", "--cache", tmp_path).stdout
    monkeypatch.setattr("aiscache.cli.shares.SAMPLE", 200)
    look = look_at(Choice(tmp_path, named=True))
    assert look is not None
    sampled = shares_in(tmp_path, look)
    assert not sampled.exact
    assert sampled.buckets[0].bucket == "ais://most"
    assert abs(sampled.buckets[0].objects - 0.75) < 0.1


def test_looking_does_not_disturb(filled: Cache) -> None:
    before, directory = filled.stats(), Path(str(filled.settings.path))
    files = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock.mdb"}
    stats("--cache", directory)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock.mdb"} == files
    assert filled.stats() == before
    assert all(filled.contains(ref(number)) for number in range(OBJECTS))


def test_the_text_is_a_table(filled: Cache) -> None:
    filled.read(ref(0))
    done = run("stats", "--cache", str(filled.settings.path))
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0].startswith(str(filled.settings.path))
    assert "10 objects" in done.stdout
    assert "[#" in done.stdout
    assert "of 20.0 MB" in done.stdout
    assert "100.00% of reads" in done.stdout
    assert str(os.getpid()) in done.stdout


def test_prometheus_can_read_it(filled: Cache) -> None:
    filled.read(ref(0))
    done = run("stats", "--cache", str(filled.settings.path), "--prometheus")
    families = {family.name: family for family in text_string_to_metric_families(done.stdout)}
    assert all(name.startswith("aiscache_") and family.documentation for name, family in families.items())
    hits = {sample.labels["tier"]: sample.value for sample in families["aiscache_hits"].samples}
    assert sorted(hits.values()) == [0, 1]
    (objects,) = families["aiscache_objects"].samples
    assert (objects.value, objects.labels) == (OBJECTS, {"cache": filled.settings.path})
    counted = {name for name in MEANINGS if not name.startswith(("hits", "bytes", "stall"))}
    assert {f"aiscache_{name}" for name in counted} < set(families)
    assert families["aiscache_stall_seconds"].type == "counter"


def test_prometheus_is_told_that_there_is_none_and_reads_odd_paths() -> None:
    text = exposition(Path('/a "b"\\\n'), None)
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert (sample.name, sample.value, sample.labels) == ("aiscache_exists", 0, {"cache": '/a "b"\\\n'})


def test_watching_tells_again_until_ctrl_c(filled: Cache) -> None:
    with Running("stats", "--cache", str(filled.settings.path), "--watch", "0.05s", "--json") as running:
        assert running.process.stdout is not None
        first = json.loads(running.process.stdout.readline())
        filled.read(ref(0))
        while (told := json.loads(running.process.stdout.readline()))["counters"]["hits"] == 0:
            assert set(told) == set(first) == KEYS
        assert told["counters"]["hits"] == 1
        assert running.interrupt(group=True) == (130, "")


def test_watching_shows_rates(filled: Cache) -> None:
    with Running("stats", "--cache", str(filled.settings.path), "--watch", "0.05s") as running:
        running.read_until("In use by")
        filled.read_many([ref(number) for number in range(OBJECTS)])
        assert running.process.stdout is not None
        rates = (re.fullmatch(r"hits .*100.00% of reads +([\d.]+)/s\n", line) for line in running.process.stdout)
        assert float(next(filter(None, rates))[1]) > 0


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_is_for_terminals_that_show_it(filled: Cache, variables: dict[str, str]) -> None:
    path = str(filled.settings.path)
    assert "\x1b[" not in run("stats", "--cache", path).stdout
    _, shown = run_in_terminal("stats", "--cache", path, **{"TERM": "xterm", **variables})
    assert ("\x1b[" in shown) is not bool(variables)
    assert "10 objects" in shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_objects_are_told_of_in_half_a_second(tmp_path: Path) -> None:
    with Cache(tmp_path, capacity="2GB") as cache:
        store = cache.store()
        assert store is not None
        for start in range(0, 1_000_000, 1000):
            made = [replace(ref(number), size=8) for number in range(start, start + 1000)]
            reserved = [
                store.reserve(key=one.key, digest=one.digest, identity=pack_identity(one), length=8) for one in made
            ]
            for reservation in reserved:
                assert reservation is not None
                reservation.fill(bytes(8))
            store.keep([reservation for reservation in reserved if reservation is not None])
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert stats("--cache", tmp_path)["objects"] == 1_000_000
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.4  # of the processor's time: the machine may be busy with other things


def test_a_cache_that_nobody_has_open_can_be_looked_at(filled: Cache) -> None:
    filled.close()
    told = stats(AISCACHE_DIR=str(filled.settings.path))
    assert (told["objects"], told["users"]) == (OBJECTS, [])


def test_an_argument_goes_before_the_environment(filled: Cache) -> None:
    done = run("path", "--cache", "/here", AISCACHE_DIR="/there")
    assert done.stdout == "/here\n"
    assert run("path", AISCACHE_DIR="/there").stdout == "/there\n"
    assert run("path").stdout == f"{unnamed_path()}\n"


def test_an_index_of_an_earlier_boot_is_not_opened(filled: Cache) -> None:
    filled.close()
    path = Path(str(filled.settings.path))
    (path / "boot").write_text("another boot")
    (path / "index" / "data.mdb").write_bytes(b"torn")
    told = stats("--cache", path)
    assert told["index_trusted"] is False
    assert "counts the objects anew" in run("stats", "--cache", path).stdout


@pytest.mark.parametrize("fill", [b"", b"\0", b"\xff"])
def test_a_damaged_index_is_not_opened(filled: Cache, fill: bytes) -> None:
    filled.close()
    path = Path(str(filled.settings.path))
    data = path / "index" / "data.mdb"
    size, meta_pages = data.stat().st_size, 8192
    os.truncate(data, meta_pages)
    with data.open("ab") as file:
        file.write(fill * (size - meta_pages))
    assert stats("--cache", path)["index_trusted"] is False


@pytest.mark.parametrize("kind", ["missing", "file", "stranger", "other format"])
def test_a_named_path_that_is_no_cache_is_an_error(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "there"
    if kind == "file":
        path.write_text("")
    elif kind != "missing":
        path.mkdir()
        if kind == "other format":
            (path / "format").write_text("aiscache 99\n")
    before = sorted(tmp_path.rglob("*"))
    for command in ("stats", "clear"):
        assert main([command, "--cache", str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("aiscache: error: ")
        assert str(path) in error
        assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unnamed_cache_that_nobody_uses_is_told_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AISCACHE_DIR", raising=False)
    monkeypatch.setattr("aiscache.store.tiers.SHARED_MEMORY", tmp_path)
    for arguments in (["stats"], ["path"], ["stats", "--json"], ["clear"]):
        assert main(arguments) == 0
    assert "Nobody uses the unnamed cache" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_unnamed_cache_while_somebody_uses_it() -> None:
    with Cache() as cache:
        cache.put(ref(1), bytes(OBJECT_BYTES))
        told = stats()
        assert (told["exists"], told["named"]) == (True, False)
        assert os.getpid() in [user["pid"] for user in told["users"]]  # type: ignore[attr-defined]
        assert unnamed_in_use(unnamed_path())
