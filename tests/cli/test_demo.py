"""`aiscache demo`: it measures, it prints, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aiscache.cli.demo.scratch import scratch_directory
from aiscache.errors import CacheDirectoryError
from tests.cli.program import Running, run

SMALL = ("--objects", "200", "--size", "20kB", "--epochs", "2", "--workers", "2")


def leftovers(pid: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"aiscache-demo-{pid}-")]


def test_both_contenders_do_the_same_work() -> None:
    done = run("demo", *SMALL, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    ours, theirs = told["contenders"]["aiscache"], told["contenders"]["aistore.pytorch"]
    assert [epoch["loss"] for epoch in ours] == [epoch["loss"] for epoch in theirs]
    assert [epoch["samples"] for epoch in ours + theirs] == [200] * 4
    assert [epoch["gets"] for epoch in ours] == [200, 0]
    assert [epoch["gets"] for epoch in theirs] == [200, 200]
    assert [epoch["hit_ratio"] for epoch in ours] == [0, 1]
    assert ours[1]["memory_bytes"] + ours[1]["disk_bytes"] == 200 * 20_000
    rates = [sum(e["samples"] for e in c) / sum(e["seconds"] for e in c) for c in (ours, theirs)]
    assert told["ratio"] == pytest.approx(rates[0] / rates[1])


def test_ctrl_c_leaves_nothing_behind() -> None:
    with Running("demo", "--objects", "1000", "--epochs", "1000", "--no-compare") as demo:
        printed = demo.read_until("  0.6")  # the first epoch's line, by its loss
        assert leftovers(demo.pid) != []
        code, errors = demo.interrupt(group=True)
        assert (code, errors) == (130, "")
        assert demo.left_behind() == []
        assert leftovers(demo.pid) == []
    assert max(map(len, printed.splitlines())) < 80


def test_a_killed_run_is_tidied_up_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiscache.cli.demo.scratch._SHARED_MEMORY", str(tmp_path))
    abandoned, other = tmp_path / "aiscache-demo-1-x", tmp_path / "somebody's"
    abandoned.mkdir()
    other.mkdir()
    with scratch_directory(1) as first, scratch_directory(1) as second:
        assert first != second
        assert sorted(tmp_path.iterdir()) == sorted([first, second, other])
    assert list(tmp_path.iterdir()) == [other]


def test_no_room_is_told() -> None:
    with pytest.raises(CacheDirectoryError, match="ask for less"), scratch_directory(1 << 62):
        pass
