"""`aiscache report`: one page that needs nothing else, with what was noted of the last runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from aiscache.cache import Cache
from aiscache.cli.charts import Series, bar_chart, line_chart
from aiscache.cli.page import percentile_ms
from aiscache.stats import LATENCY_EDGES_MS
from aiscache.store.runs import noted
from tests.cli.conftest import OBJECTS, ref
from tests.cli.program import run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIRST_COLOUR, SECOND_COLOUR = (0x2F, 0x6F, 0xDE), (0xE0, 0x8A, 0x1E)


class Balance(HTMLParser):
    """Whether all that is opened is closed, and what there is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(filled: Cache, tmp_path: Path) -> Path:
    """A report of three epochs and a warming."""
    store = filled.store()
    assert store is not None
    for number in range(3):
        with noted(store, kind="epoch") as doing:
            filled.read_many([ref(one) for one in range(OBJECTS)])
            filled.lookup([bytes(16)], [0])
            store.counters.took(0.003 * (number + 1))
            store.counters.add("stall_ns", 10**9 * number)
            doing.samples, doing.complete = 100, number < 2
    with noted(store, kind="warm") as doing:
        doing.samples, doing.complete = 1234, True
    out = tmp_path / "report.html"
    done = run("report", "--cache", str(filled.settings.path), "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Wrote {out}: 3 epochs and 1 warming were noted in {filled.settings.path}.\n"
    return out


def test_the_page_has_the_charts_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    found = Balance(text)
    assert found.open == []
    assert found.counts["svg"] == 6
    assert not {"script", "link", "img", "iframe"} & set(found.counts)
    assert not re.search(r"https?:|src=|@import|url\(", text)
    for told in ("hits per read: 91%", "stalled: 2 s", "1 of them broken off", "1,234", "90th: "):
        assert told in text


def test_without_notes_it_says_where_they_come_from(filled: Cache, tmp_path: Path) -> None:
    done = run("report", "--cache", str(filled.settings.path), "--out", tmp_path / "x.html")
    assert done.returncode == 0
    assert "Epochs are noted where aiscache.DataLoader or PrefetchSampler is used" in done.stdout
    assert "<h2>No epochs</h2>" in (tmp_path / "x.html").read_text()


def test_a_place_that_cannot_be_written_and_no_cache(filled: Cache, tmp_path: Path) -> None:
    done = run("report", "--cache", str(filled.settings.path), "--out", tmp_path / "no" / "x.html")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run("report", "--cache", tmp_path / "none").returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_draws_it(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1060,900"]
    subprocess.run(
        [str(BROWSER), *options, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=100,
    )
    with Image.open(shot) as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert colours[FIRST_COLOUR] > 500  # the bars, and the first line of each chart
    assert colours[SECOND_COLOUR] > 50
    assert colours[(255, 255, 255)] > 50_000  # the page is not all of one colour


def test_percentiles_from_counts_within_powers_of_two() -> None:
    counts = [0] * (len(LATENCY_EDGES_MS) + 1)
    assert percentile_ms(counts, 0.5) is None
    counts[3] = 100  # 4 to 8 ms
    assert percentile_ms(counts, 0.5) == 6
    assert percentile_ms(counts, 0.99) == pytest.approx(7.96)
    counts[-1] = 900
    assert percentile_ms(counts, 0.9) == LATENCY_EDGES_MS[-1]


def test_charts_escape_what_they_are_given_and_draw_what_is_there() -> None:
    lines = line_chart(["<0>", "1", "2"], [Series("a&b", [1.0, None, 3.0])], form=str)
    assert lines.count("<circle") == 2
    assert "&lt;0&gt;" in lines
    assert "a&amp;b" in lines
    bars = bar_chart([str(number) for number in range(100)], [Series("x", [0.0] * 100)], form=str)
    assert bars.count('class="epoch"') <= 12
    Balance(bars + lines)
