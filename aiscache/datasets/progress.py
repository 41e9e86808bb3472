"""A progress bar for iterable datasets: one per worker, on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from aiscache.bars import Bar

Item = TypeVar("Item")


def with_progress(samples: Iterable[Item], *, total: int, title: str, worker: int, workers: int) -> Iterator[Item]:
    """Yield the samples, and show how many of `total` were consumed; nothing is shown if stderr is no terminal."""
    name = f"{title} (Worker {worker})" if workers > 1 else title
    with Bar(total=total, desc=name, position=worker, unit="obj", disable=None, leave=workers == 1) as bar:
        for sample in samples:
            yield sample
            bar.update()
