"""`aiscache verify` finds damage, `aiscache repair` makes the index anew; both leave what is good."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aiscache.cache import Cache
from aiscache.cli import main
from tests.cli.conftest import OBJECT_BYTES, OBJECTS, ref
from tests.cli.program import run, run_in_terminal


@pytest.fixture
def path(filled: Cache) -> Path:
    """The filled cache, closed."""
    filled.close()
    return Path(str(filled.settings.path))


def damage(path: Path, number: int) -> None:
    """Change a byte of one object behind the cache's back."""
    with Cache(path) as cache:
        store = cache.store()
        assert store is not None
        record = next(record for _, record in store.upkeep.records() if record.ref.name == str(number))
    (segment,) = path.rglob("*.seg")
    data = bytearray(segment.read_bytes())
    data[record.payload + 100] ^= 1
    segment.write_bytes(data)


def test_all_is_well(path: Path) -> None:
    done = run("verify", "--cache", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Checked {OBJECTS} objects, 500.0 kB: all are what was written.\n"


def test_damage_is_named_and_dropped_and_the_exit_code_says_so(path: Path) -> None:
    damage(path, 3)
    done = run("verify", "--cache", path)
    assert done.returncode == 1
    assert done.stdout == f"Checked {OBJECTS} objects, 500.0 kB: 1 damaged.\n"
    assert done.stderr == f"Dropped, to be fetched again when they are read next:\n  {ref(3).url}\n"
    again = run("verify", "--cache", path, "--json")
    assert json.loads(again.stdout) == {
        "path": str(path),
        "objects": OBJECTS - 1,
        "bytes": (OBJECTS - 1) * OBJECT_BYTES,
        "damaged": [],
    }
    with Cache(path) as cache:
        assert [cache.contains(ref(number)) for number in range(OBJECTS)] == [number != 3 for number in range(OBJECTS)]


def test_a_lost_index_is_made_anew(path: Path) -> None:
    shutil.rmtree(path / "index")
    told = json.loads(run("repair", "--cache", path, "--json").stdout)
    assert told["objects"] == OBJECTS
    assert run("repair", "--cache", path).stdout == f"The index of {path} is new: {OBJECTS} objects found, as before.\n"
    assert run("verify", "--cache", path).returncode == 0


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_progress_is_for_terminals(command: str, path: Path) -> None:
    code, shown = run_in_terminal(command, "--cache", path)
    assert code == 0
    assert f"\r{command}: " in shown
    assert run(command, "--cache", path).stderr == ""


@pytest.mark.parametrize("command", ["verify", "repair", "evict", "ls"])
def test_no_cache_is_made_to_be_looked_at(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AISCACHE_DIR", raising=False)
    monkeypatch.setattr("aiscache.store.tiers.SHARED_MEMORY", tmp_path)
    arguments = [command, "ais://b"] if command == "evict" else [command]
    assert main([*arguments, "--cache", str(tmp_path / "none")]) == 1
    assert f"there is no cache in {tmp_path}/none: it does not exist" in capsys.readouterr().err
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "Nobody uses the unnamed cache" in told.out + told.err
    assert list(tmp_path.iterdir()) == []
