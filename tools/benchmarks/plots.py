"""Pictures of tables, as SVG: bars for contenders, curves for what grows. Drawn where `--plots DIRECTORY` is given."""

from __future__ import annotations

import os
import re
from typing import Any

_OURS, _OTHERS = "#5c8a3a", "#9aa5b1"


def bars(directory: str, title: str, values: dict[str, float], *, unit: str) -> None:
    """Draw a bar for each contender."""
    picture, axes = _figure(height=0.6 + 0.32 * len(values))
    labels = list(values)[::-1]
    colours = [_OURS if "aiscache" in label else _OTHERS for label in labels]
    drawn = axes.barh(labels, [values[label] for label in labels], color=colours)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_xlabel(unit, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.margins(x=0.12)
    _save(picture, directory, title)


def curve(directory: str, title: str, values: dict[str, float], *, unit: str) -> None:
    """Draw a curve over numbers on a logarithmic axis."""
    picture, axes = _figure(height=2.6)
    axes.plot([int(label.replace(",", "")) for label in values], list(values.values()), "o-", color=_OURS)
    axes.set(xscale="log", ylim=(0, max(values.values()) * 1.2))
    axes.set_ylabel(unit, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    _save(picture, directory, title)


def _figure(*, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "aiscache"  # the same figures make the same file
    picture, axes = pyplot.subplots(figsize=(7, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return picture, axes


def _save(picture: Any, directory: str, title: str) -> None:
    from matplotlib import pyplot

    os.makedirs(directory, exist_ok=True)
    name = "-".join(re.findall(r"[a-z0-9]+", title.lower())[:7])
    picture.savefig(os.path.join(directory, f"{name}.svg"), metadata={"Date": None})
    pyplot.close(picture)
