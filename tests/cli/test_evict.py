"""`aiscache evict` says what it will remove, and removes that."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from aiscache.cache import Cache
from aiscache.cli import main
from tests.cli.conftest import OBJECTS, ref
from tests.cli.program import run, run_in_terminal


@pytest.fixture
def path(filled: Cache) -> Path:
    """The filled cache, closed, with one object of another bucket."""
    filled.put(replace(ref(0), bucket="other"), bytes(ref(0).size))
    filled.close()
    return Path(str(filled.settings.path))


def left(path: Path) -> int:
    with Cache(path) as cache:
        store = cache.store()
        assert store is not None
        return store.upkeep.count()


def test_a_dry_run_removes_nothing_and_says_what_the_real_one_does(path: Path) -> None:
    dry = json.loads(run("evict", "ais://bucket", "--cache", path, "--dry-run", "--json").stdout)
    assert (dry["objects"], dry["skipped_objects"], dry["dry_run"]) == (OBJECTS, 0, True)
    assert left(path) == OBJECTS + 1
    done = json.loads(run("evict", "ais://bucket", "--cache", path, "--json").stdout)
    assert (done["objects"], done["dry_run"]) == (OBJECTS, False)
    assert dry["freed_bytes"] * 0.9 < done["freed_bytes"] <= dry["freed_bytes"]
    assert left(path) == 1


def test_prefixes_and_several_sources(path: Path) -> None:
    done = run("evict", "ais://bucket/3", "ais://other", "--cache", path)
    assert done.stdout.startswith(f"Evicted 2 objects from {path}, ")
    assert left(path) == OBJECTS - 1
    assert run("evict", "ais://bucket/3", "--cache", path).stdout == f"Nothing to evict in {path}.\n"


def test_what_is_in_use_is_left_unless_forced(path: Path) -> None:
    with Cache(path) as cache:
        view = cache.read(ref(0))
        done = run("evict", "ais://bucket", "--cache", path)
        assert done.returncode == 0
        assert "10 objects stayed: mapped by some process" in done.stdout
        assert run("evict", "ais://bucket", "--cache", path, "--force").stdout.startswith("Evicted 10 objects")
        assert not cache.contains(ref(0))
        assert bytes(view) == bytes(ref(0).size)


def test_only_what_is_older(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evict", "--older-than", "2h", "--cache", str(path)]
    assert main(arguments) == 0
    assert left(path) == OBJECTS + 1
    for segment in path.rglob("*.seg"):
        os.utime(segment, (1, time.time() - 7201))
    assert main([*arguments, "--dry-run"]) == 0
    assert f"Would evict {OBJECTS + 1} objects" in capsys.readouterr().out
    assert main(arguments) == 0
    assert left(path) == 0


def test_on_a_terminal_it_asks(path: Path) -> None:
    code, shown = run_in_terminal("evict", "ais://bucket", "--cache", path, answer="n\n")
    assert code == 1
    assert f"Evict {OBJECTS} objects (" in shown
    assert "Nothing was removed." in shown
    assert run_in_terminal("evict", "ais://bucket", "--cache", path, answer="y\n")[0] == 0
    assert run_in_terminal("evict", "ais://other", "--cache", path, "--yes")[0] == 0
    assert left(path) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "`aiscache clear` removes everything"),
        (["--older-than", "soon"], "'soon' is not a time; write a number with a unit: 90s, 30min, 12h, 7d"),
        (["bucket"], "'bucket' is not a source"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evict", *arguments, "--cache", str(path)]) == 2
    assert says in capsys.readouterr().err
