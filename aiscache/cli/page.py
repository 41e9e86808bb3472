"""The page of `aiscache report`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from aiscache.cli.charts import Series, bar_chart, line_chart
from aiscache.cli.look import Look
from aiscache.cli.wording import counted
from aiscache.settings import format_size
from aiscache.stats import LATENCY_EDGES_MS
from aiscache.store.runs import EpochNote

_PERCENTILES = (0.5, 0.9, 0.99)
_STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --dim: #5d6b7c; --back: #fff; --card: #f5f7f9; --grid: #d9dfe6;
        --c0: #2f6fde; --c1: #e08a1e; --c2: #3a9d62; }
@media (prefers-color-scheme: dark) { :root { --text: #e5eaf0; --dim: #9aa7b6; --back: #14181d; --card: #1d232b;
        --grid: #343d48; --c0: #6b9cf2; --c1: #f0ab52; --c2: #63c78b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 2rem auto;
       max-width: 1000px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 0 0 .3rem; } p { color: var(--dim); margin: .2rem 0 1rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 1rem; }
.chart { background: var(--card); border-radius: 8px; padding: .8rem 1rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: var(--dim); }
.scale { text-anchor: end; } .epoch { text-anchor: middle; } .grid { stroke: var(--grid); }
.line { fill: none; stroke-width: 2; } .s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); }
.line { stroke: var(--c); } .dot, .bar { fill: var(--c); }
.all { color: var(--text); margin-bottom: 0; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { font-weight: 600; }
"""


def page(path: Path, look: Look, notes: Sequence[EpochNote], *, most_runs: int) -> str:
    """Return the whole page."""
    runs: dict[str, list[EpochNote]] = {}
    for note in notes:
        if note.kind == "epoch":
            runs.setdefault(note.run, []).append(note)
    newest = sorted(runs.values(), key=lambda epochs: -epochs[-1].began)[:most_runs]
    warmings = [note for note in notes if note.kind == "warm"][-most_runs:]
    body = [f"<h1>aiscache: {escape(str(path))}</h1>", f"<p>{_state(look)}; {_when(time.time())}</p>"]
    body += [_run(epochs) for epochs in newest]
    if not newest:
        body.append("<h2>No epochs</h2><p>They are noted where aiscache.DataLoader or PrefetchSampler is used.</p>")
    if warmings:
        body.append(_warmings(warmings))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>aiscache report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _state(look: Look) -> str:
    tiers = ", ".join(
        f"{tier.name} {format_size(tier.used_bytes)} of {format_size(tier.capacity_bytes)}" for tier in look.tiers
    )
    return f"{counted(look.objects, 'object')}; {tiers}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _run(epochs: list[EpochNote]) -> str:
    """Return the section of one process."""
    first = epochs[0]
    rank = f", rank {escape(first.rank)}" if first.rank else ""
    partial = sum(not note.complete for note in epochs)
    more = f", {partial} of them broken off" if partial else ""
    about = f"{counted(len(epochs), 'epoch')}{more}, the first at {_when(first.began)}{rank}; process {_pid(first)}. "
    about += "Hits, waits, bytes and fetches are those of all processes of the machine while the epochs lasted."
    charts = "".join(f'<div class="chart"><h3>{title}</h3>{chart}</div>' for title, chart in _charts(epochs))
    title = f'<h2>{escape(first.program)}</h2><p class="all">{_in_all(epochs)}</p><p>{about}</p>'
    return f'{title}<div class="charts">{charts}</div>'


def _in_all(epochs: list[EpochNote]) -> str:
    """Return what the epochs come to together."""
    total = {name: sum(note.counters.get(name, 0) for note in epochs) for name in ("hits", "misses", "fetched_bytes")}
    samples, reads = sum(note.samples for note in epochs), total["hits"] + total["misses"]
    parts = [counted(samples, "sample")] if samples else []
    parts.append(f"{sum(note.seconds for note in epochs):,.1f} s")
    parts += [f"{total['hits'] / reads:.0%} hits"] if reads else []
    return ", ".join([*parts, f"{format_size(total['fetched_bytes'])} fetched"])


def _pid(note: EpochNote) -> str:
    return escape(note.run.partition("-")[0])


def _charts(epochs: list[EpochNote]) -> list[tuple[str, str]]:
    labels = [str(note.number) for note in epochs]
    rates = [note.samples / note.seconds if note.samples and note.seconds else None for note in epochs]
    counts = [note.counters for note in epochs]
    tiers = [
        Series(name, [one.get(counter, 0) for one in counts])
        for name, counter in (("memory", "bytes_memory"), ("disk", "bytes_disk"), ("cluster", "fetched_bytes"))
    ]
    latencies = [
        Series(f"{share:.0%}".replace("%", "th"), [percentile_ms(note.latencies, share) for note in epochs])
        for share in _PERCENTILES
    ]
    return [
        ("Throughput, samples/s", line_chart(labels, [Series("samples/s", rates)], form=lambda value: f"{value:,.0f}")),
        (
            "Hits per read",
            line_chart(
                labels,
                [Series("hits per read", [one.get("hit_ratio", 0) for one in counts])],
                form=lambda value: f"{value:.0%}",
                top=1.0,
            ),
        ),
        (
            "Time that reads waited, all processes together",
            bar_chart(
                labels,
                [Series("stalled", [one.get("stall_s", 0) for one in counts])],
                form=lambda value: f"{value:,.4g} s",
            ),
        ),
        ("Bytes, by where they came from", line_chart(labels, tiers, form=format_size)),
        ("How long fetches took, percentiles", line_chart(labels, latencies, form=lambda value: f"{value:,.4g} ms")),
        (
            "Time of the epoch",
            bar_chart(
                labels, [Series("epoch", [note.seconds for note in epochs])], form=lambda value: f"{value:,.4g} s"
            ),
        ),
    ]


def percentile_ms(latencies: Sequence[int], share: float) -> float | None:
    """Return about how long that share of the fetches took at most, in ms; None if there were none.

    Known are the numbers within powers of two; in between it is guessed that they grow evenly.
    """
    wanted = sum(latencies) * share
    if not wanted:
        return None
    below = 0
    for number, count in enumerate(latencies):
        if count and below + count >= wanted:
            lower = 0.0 if number == 0 else float(LATENCY_EDGES_MS[number - 1])
            upper = float(LATENCY_EDGES_MS[min(number, len(LATENCY_EDGES_MS) - 1)])
            return lower + (max(upper, lower) - lower) * (wanted - below) / count
        below += count
    return float(LATENCY_EDGES_MS[-1])


def _warmings(notes: list[EpochNote]) -> str:
    rows = []
    for note in reversed(notes):
        size = note.counters.get("fetched_bytes", 0)
        rate = f"{note.samples / note.seconds:,.0f}" if note.seconds else ""
        cells = [_when(note.began), f"{note.samples:,}", format_size(size), f"{note.seconds:.1f} s", rate]
        cells.append("all" if note.complete else "in part")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{title}</th>" for title in ("warming", "objects", "size", "time", "objects/s", "done"))
    return f"<h2>Warmings</h2><table><tr>{head}</tr>{''.join(rows)}</table>"
