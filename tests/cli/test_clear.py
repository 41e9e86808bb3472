"""`aiscache clear` removes what is there, says how much, and names who uses it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from aiscache.cache import Cache
from tests.cli.conftest import OBJECTS, ref
from tests.cli.program import COMMAND, TIMEOUT_S, environment, run


def test_it_removes_all_and_names_the_users(filled: Cache) -> None:
    done = run("clear", "--cache", str(filled.settings.path), "--yes")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Removed {OBJECTS} objects from {filled.settings.path}, ")
    assert "In use by 1 other process:" in done.stderr
    assert str(os.getpid()) in done.stderr
    assert not any(filled.contains(ref(number)) for number in range(OBJECTS))


def test_as_json_with_nobody_else(filled: Cache) -> None:
    filled.close()
    done = run("clear", "--cache", str(filled.settings.path), "--json")
    told = json.loads(done.stdout)
    assert done.stderr == ""
    assert (told["path"], told["objects"], told["users"]) == (filled.settings.path, OBJECTS, [])
    assert told["freed_bytes"] > 0
    assert run("clear", "--cache", str(filled.settings.path)).stdout.startswith("Nothing to remove")


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, True), ("\n", 1, True), ("y\n", 0, False)])
def test_it_asks_on_a_terminal(answer: str, code: int, left: bool, filled: Cache) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [*COMMAND, "clear", "--cache", str(filled.settings.path)],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=TIMEOUT_S,
            env=environment(),
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == code
    assert f"Remove {OBJECTS} objects" in shown
    assert "[y/N]" in shown
    assert ("Nothing was removed." in shown) is left
    assert filled.contains(ref(0)) is left


def test_what_a_killed_process_left_of_the_unnamed_cache_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aiscache.cli import main

    monkeypatch.delenv("AISCACHE_DIR", raising=False)
    monkeypatch.setattr("aiscache.store.tiers.SHARED_MEMORY", tmp_path)
    left = tmp_path / f"aiscache-{os.geteuid()}" / "unnamed" / "segments"
    left.mkdir(parents=True, mode=0o700)
    left.parents[1].chmod(0o700)
    (left / "0.seg").write_bytes(bytes(100_000))
    assert main(["stats"]) == 0
    assert "A process that was killed left" in capsys.readouterr().out
    assert main(["clear"]) == 0
    assert "102.4 kB came free" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
