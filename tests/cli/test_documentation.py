"""docs/command-line.md says what the program says of itself."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from aiscache.cli.program import COMMANDS, make_parser
from aiscache.stats import COUNTERS, MEANINGS, CacheStats
from aiscache.warm import Need, Warmed

TEXT = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()


def names_in(section: str) -> set[str]:
    """Return what is in code marks in the first column of a section's tables."""
    start = TEXT.index(section)
    rows = re.findall(r"^\| (`[^|]*) \|", TEXT[start : TEXT.index("\n## ", start + 1)], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_each_counter_with_its_meaning() -> None:
    for name, meaning in MEANINGS.items():
        assert f"| `{name}` | {meaning} |" in TEXT
    assert {*COUNTERS, "hits", "hit_ratio", "stall_s"} == set(CacheStats().asdict()) <= names_in("### The counters")


def test_each_key_of_warm() -> None:
    need = Need(objects=0, bytes=0, present_objects=0, present_bytes=0, needed_bytes=0, free_bytes=0, evictable_bytes=0)
    assert names_in("## warm") == {"path", *Warmed(need=need).asdict()}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_each_command_and_its_options(command: object) -> None:
    name = command.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    assert re.search(rf"^\| \[?`{name}`", TEXT, re.MULTILINE)
    if name in ("serve", "demo"):
        return
    (commands,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    everywhere = {"--help", "--verbose", "--cache", "--json", "--no-progress"}
    options = {option for one in commands.choices[name]._actions for option in one.option_strings}
    for option in {option for option in options if option.startswith("--")} - everywhere:
        assert option in TEXT, f"{option} of {name}"


def test_what_runs_print_is_of_this_version() -> None:
    """The pages' outputs are pasted from real runs: where the wording has changed, paste them anew."""
    for wording in ("They fit: they need ", "could not be fetched:", "Checked ", "Would evict ", "UNUSED FOR"):
        sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "aiscache" / "cli").glob("*.py"))
        assert wording in TEXT
        assert wording.split(":")[0].strip() in sources
