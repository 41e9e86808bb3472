"""Charts as SVG text: lines and stacked bars over epochs. No script, no font, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 26, 28
_INNER_WIDTH, _INNER_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_MOST_LABELS = 12
_MOST_LARGE_DOTS = 40

Form = Callable[[float], str]


class Series(NamedTuple):
    """One line, or one layer of the bars: a name, and a value for each epoch, None where there is none."""

    name: str
    values: Sequence[float | None]


def line_chart(labels: Sequence[str], series: Sequence[Series], *, form: Form, top: float | None = None) -> str:
    """Return a chart of lines; `form` writes a value, `top` is the end of the scale."""
    top = top or _nice(max((value or 0 for one in series for value in one.values), default=0))
    marks = []
    radius = 3 if len(labels) <= _MOST_LARGE_DOTS else 1.5
    for number, one in enumerate(series):
        points = [(_middle(place, len(labels)), _y(value, top), value) for place, value in _known(one.values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        marks.append(f'<polyline class="line s{number}" points="{path}"/>')
        for (place, _), (x, y, value) in zip(_known(one.values), points, strict=True):
            marks.append(
                f'<circle class="dot s{number}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
                f"{_title(labels[place], one.name, form(value))}</circle>"
            )
    return _chart(labels, series, marks, top=top, form=form)


def bar_chart(labels: Sequence[str], series: Sequence[Series], *, form: Form) -> str:
    """Return a chart of bars, the series one on top of the other."""
    sums = [sum(one.values[place] or 0 for one in series) for place in range(len(labels))]
    top = _nice(max(sums, default=0))
    width = min(44.0, _INNER_WIDTH / max(1, len(labels)) * 0.7)
    marks = []
    below = [0.0] * len(labels)
    for number, one in enumerate(series):
        for place, value in _known(one.values):
            upper, lower = _y(below[place] + value, top), _y(below[place], top)
            below[place] += value
            marks.append(
                f'<rect class="bar s{number}" x="{_middle(place, len(labels)) - width / 2:.1f}" y="{upper:.1f}" '
                f'width="{width:.1f}" height="{max(0.0, lower - upper):.1f}">'
                f"{_title(labels[place], one.name, form(value))}</rect>"
            )
    return _chart(labels, series, marks, top=top, form=form)


def _chart(labels: Sequence[str], series: Sequence[Series], marks: list[str], *, top: float, form: Form) -> str:
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">', *_grid(top, form), *marks, *_epochs(labels)]
    x = float(_LEFT)
    for number, one in enumerate(series if len(series) > 1 else ()):  # of a single one the title tells
        parts.append(f'<rect class="bar s{number}" x="{x:.0f}" y="8" width="10" height="10"/>')
        parts.append(f'<text x="{x + 15:.0f}" y="17">{escape(one.name)}</text>')
        x += 34 + 7 * len(one.name)
    return "".join([*parts, "</svg>"])


def _grid(top: float, form: Form) -> list[str]:
    lines = []
    for step in range(5):
        value = top * step / 4
        y = _y(value, top)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="scale" x="{_LEFT - 6}" y="{y + 4:.1f}">{escape(form(value))}</text>')
    return lines


def _epochs(labels: Sequence[str]) -> list[str]:
    every = max(1, ceil(len(labels) / _MOST_LABELS))
    title = f'<text class="scale" x="{_LEFT - 6}" y="{HEIGHT - 10}">epoch</text>'
    return [
        title,
        *(
            f'<text class="epoch" x="{_middle(place, len(labels)):.1f}" y="{HEIGHT - 10}">{escape(label)}</text>'
            for place, label in enumerate(labels)
            if place % every == 0
        ),
    ]


def _known(values: Sequence[float | None]) -> list[tuple[int, float]]:
    return [(place, value) for place, value in enumerate(values) if value is not None]


def _title(epoch: str, name: str, value: str) -> str:
    return f"<title>{escape(f'epoch {epoch}, {name}: {value}')}</title>"


def _middle(place: int, count: int) -> float:
    return _LEFT + _INNER_WIDTH * (place + 0.5) / count


def _y(value: float, top: float) -> float:
    return _TOP + _INNER_HEIGHT * (1 - value / top)


def _nice(value: float) -> float:
    """Return the end of a scale that has `value` on it, whose quarters are round numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 3, 4, 6, 8, 10) if step * power >= value * 0.999)
