"""`Table`: what a suite measured, all repeats of it, and how it reads as Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

Figures = dict[str, float]


@dataclass(frozen=True)
class Table:
    """Figures by name, of each repeat, for each row by its label.

    `figure` is what rows are compared by: the last column is the ratio of its medians to the largest of the rows in
    `base`, else to the first row. `columns` are the figures that are shown, all if there are none. `picture` names the
    picture that is drawn of `figure`: bars, or with `axis` a curve over the labels, which then are numbers.
    """

    suite: str
    title: str
    runs: dict[str, list[Figures]]
    figure: str = ""
    base: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    picture: str = ""
    axis: str = ""

    def medians(self) -> dict[str, float]:
        """Return the median of `figure` for each row."""
        return {
            label: statistics.median(figures[self.figure] for figures in found) for label, found in self.runs.items()
        }

    def markdown(self) -> str:
        """Return the table: medians of the repeats, with the smallest and the largest."""
        names = self.columns or list(dict.fromkeys(n for found in self.runs.values() for f in found for n in f))
        ratios = self._ratios()
        lines = [f"| | {' | '.join(names)} |{' ratio |' if ratios else ''}", f"|---|{'---|' * len(names)}"]
        lines[1] += "---|" if ratios else ""
        for label, found in self.runs.items():
            cells = [_cell([figures[name] for figures in found if name in figures]) for name in names]
            cells += [_number(ratios[label])] if ratios else []
            lines.append(f"| {label} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _ratios(self) -> dict[str, float]:
        if not self.figure:
            return {}
        medians = self.medians()
        reference = max((medians[label] for label in self.base), default=next(iter(medians.values())))
        return {label: median / reference for label, median in medians.items()}


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    middle, least, most = map(_number, (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
