"""`aiscache stats` and `aiscache path` tell, and change nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aiscache.cache import Cache
from aiscache.cli import main
from aiscache.cli.look import unnamed_in_use
from aiscache.stats import COUNTERS
from aiscache.store.registry import unnamed_path
from tests.cli.conftest import OBJECT_BYTES, OBJECTS, ref
from tests.cli.program import run

KEYS = {"path", "named", "exists", "file_system", "index_trusted", "objects", "segments", "index_bytes", "tiers"}
KEYS |= {"users", "counters"}


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
