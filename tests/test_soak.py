"""`tools/soak`: a short run keeps all promises, and one over a cache whose bytes are changed by hand tells so."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.forks import ROOT
from tools.soaking.figures import Figures
from tools.soaking.ledger import Ledger
from tools.soaking.processes import Stops

PROGRAM = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "soak.py")]
SEED = 7


@contextmanager
def soaking(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*PROGRAM, "--seed", str(SEED), "--cache", str(folder), "--json", str(folder / "figures"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def figures_in(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / "figures").read_text())
    return figures


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_run_keeps_all_promises(tmp_path: Path) -> None:
    with soaking(tmp_path, "--seconds", "10") as process:
        told, _ = process.communicate()
    figures = figures_in(tmp_path)
    assert (process.returncode, figures["violations"]) == (0, [])
    assert "| violations | 0 |\n" in told
    assert figures["reads"] > 500
    assert figures["kills"]
    assert figures["filled_objects"] == figures["fill_gets"] > 100


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wrong_bytes_are_told_with_the_seed(tmp_path: Path) -> None:
    """Somebody changes bytes on disk, which are verified when they are fetched, and not on each read."""
    ended = threading.Event()

    def damage() -> None:
        while not ended.wait(0.2):
            for segment in (tmp_path / "cache" / "segments").glob("*.seg"):
                change_bytes(segment)

    hand = threading.Thread(target=damage)
    hand.start()
    try:
        with soaking(tmp_path, "--seconds", "600") as process:
            assert process.stdout is not None
            assert any("wrong bytes for version" in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            told, _ = process.communicate()
    finally:
        ended.set()
        hand.join()
    assert process.returncode == 1
    assert f"seed {SEED} |" in told
    assert any("wrong bytes for version" in violation for violation in figures_in(tmp_path)["violations"])


def change_bytes(segment: Path) -> None:
    with contextlib.suppress(FileNotFoundError), segment.open("r+b") as file:
        for place in range(20_000, segment.stat().st_size - 1, 20_000):
            file.seek(place)
            file.write(b"\xff")


# ---- how it tells


def test_a_listing_must_name_what_the_cluster_had_meanwhile(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", count=2)
    for number in range(2):
        ledger.begun[number] = ledger.done[number] = 4
    since = ledger.snapshot()
    ledger.begun[0] = 5  # is being put
    assert ledger.outdated([("a/00000", 4), ("b/00001", 4)], since=since) == []
    assert ledger.outdated([("a/00000", 5)], since=since) == []
    assert len(ledger.outdated([("a/00000", 6), ("a/00000", 3), ("b/00001", 5)], since=since)) == 3
    assert ledger.was_overwritten("a/00000", 4)
    assert not ledger.was_overwritten("b/00001", 4)


def test_time_that_others_are_stopped_is_not_waited_for_by_a_read_unless_it_is_long() -> None:
    stops = Stops(Figures(command="", seed=0))
    stops._times = [(10.0, 12.0, 1), (11.0, 13.0, 2), (20.0, 53.0, 2)]
    assert stops.overlap_s(9.0, 30.0, owner=1) == 3.0
    assert stops.overlap_s(9.0, 30.0, owner=2) == 13.0
    assert stops.overlap_s(30.0, 40.0, owner=2) == 10.0
