"""What the demo prints: a table for each contender, both side by side, and the sum of it in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aiscache.cli.demo.measure import EpochResult, rate
from aiscache.cli.table import align
from aiscache.settings import format_size

_HEADER = ("epoch", "samples/s", "GETs", "hit ratio", "memory", "disk", "cluster", "loss")
_WIDTHS = (5, 9, 7, 9, 9, 9, 9, 6)


def header() -> str:
    """Return the head of the table of one contender."""
    return _line(_HEADER)


def row(result: EpochResult, *, cached: bool) -> str:
    """Return the line of an epoch; without a cache there is nothing to say of one."""
    return _line(
        (
            str(result.epoch),
            f"{result.samples_per_s:,.0f}",
            f"{result.gets:,}",
            f"{result.hit_ratio:.1%}" if cached else "-",
            format_size(result.memory_bytes) if cached else "-",
            format_size(result.disk_bytes) if cached else "-",
            format_size(result.cluster_bytes),
            f"{result.loss:.4f}",
        )
    )


def side_by_side(ours: Sequence[EpochResult], theirs: Sequence[EpochResult]) -> list[str]:
    """Return both contenders' epochs in one table."""
    rows: list[Sequence[str]] = [("", "aiscache", "", "aistore.pytorch", "", "")]
    rows.append(("epoch", "samples/s", "GETs", "samples/s", "GETs", "ratio"))
    for one, other in zip(ours, theirs, strict=True):
        rows.append(
            (
                str(one.epoch),
                f"{one.samples_per_s:,.0f}",
                f"{one.gets:,}",
                f"{other.samples_per_s:,.0f}",
                f"{other.gets:,}",
                f"{one.samples_per_s / other.samples_per_s:.1f}x",
            )
        )
    return align(rows)


def summary(ours: Sequence[EpochResult], theirs: Sequence[EpochResult]) -> str:
    """Return the measured ratios: over all epochs, and over those after the first."""
    ratios = compare(ours, theirs)
    text = f"aiscache read {ratios['ratio']:.1f} times as many samples/s"
    if len(ours) > 1:
        text += f"; from epoch 2 on, {ratios['ratio_after_first']:.1f} times"
    return text + "."


def compare(ours: Sequence[EpochResult], theirs: Sequence[EpochResult]) -> dict[str, float]:
    """Return the ratios of samples per second, ours to theirs."""
    ratios = {"ratio": rate(ours) / rate(theirs)}
    if len(ours) > 1:
        ratios["ratio_after_first"] = rate(ours[1:]) / rate(theirs[1:])
    return ratios


def as_json(results: dict[str, list[EpochResult]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return all as plain data."""
    told: dict[str, Any] = {
        **settings,
        "contenders": {
            name: [{**asdict(result), "samples_per_s": result.samples_per_s} for result in epochs]
            for name, epochs in results.items()
        },
    }
    if len(results) == 2:
        told.update(compare(*results.values()))
    return told


def _line(cells: Sequence[str]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
