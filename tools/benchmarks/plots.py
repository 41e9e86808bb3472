"""Pictures of tables, as SVG: bars for contenders, curves for what grows.

All have one look: black on white, so that they can be read on pages of any colour, and text as text, so that files are
small. The same figures make the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from benchmarks.tables import Table

_OURS, _OTHERS = "#5c8a3a", "#9aa5b1"
_NUMBER = "{x:,.10g}"
_STYLE = {"svg.hashsalt": "aiscache", "svg.fonttype": "none", "font.size": 9, "figure.titlesize": 9}


def draw(directory: str, tables: Iterable[Table]) -> list[str]:
    """Draw the tables that have a picture; return the files' paths."""
    import matplotlib

    matplotlib.use("Agg")
    os.makedirs(directory, exist_ok=True)
    paths = []
    for table in tables:
        if table.picture:
            paths.append(os.path.join(directory, f"{table.picture}.svg"))
            with matplotlib.rc_context(_STYLE):
                _draw(paths[-1], table)
    return paths


def _draw(path: str, table: Table) -> None:
    from matplotlib import pyplot

    height = 2.6 if table.axis else 0.8 + 0.3 * len(table.runs)
    picture, axes = pyplot.subplots(figsize=(7, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    picture.suptitle(table.title, x=0.01, ha="left")
    (_curve if table.axis else _bars)(axes, table)
    picture.savefig(path, metadata={"Date": None})
    pyplot.close(picture)


def _bars(axes: Any, table: Table) -> None:
    """Draw a bar for each row, from above."""
    medians = table.medians()
    colours = [_OURS if "aiscache" in label else _OTHERS for label in medians]
    drawn = axes.barh(list(medians), list(medians.values()), color=colours)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.set_xlabel(table.figure)


def _curve(axes: Any, table: Table) -> None:
    """Draw medians over the rows' numbers, within the least and the most; from zero, so that growth shows."""
    places = [float(label.replace(",", "")) for label in table.runs]
    found = [[figures[table.figure] for figures in run] for run in table.runs.values()]
    medians = list(table.medians().values())
    axes.fill_between(places, list(map(min, found)), list(map(max, found)), color=_OURS, alpha=0.2, linewidth=0)
    axes.plot(places, medians, "o-", color=_OURS)
    axes.set(xscale="log", ylim=(0, 1.2 * max(map(max, found))))
    axes.set_xticks(places, labels=list(table.runs))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(_NUMBER)
    axes.set_xlabel(table.axis)
    axes.set_ylabel(table.figure)
