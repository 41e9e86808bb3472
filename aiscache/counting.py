"""A bar that counts, for what takes a while and knows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def counting(title: str, unit: str, *, total: int | None = None, show: bool = True) -> Iterator[Callable[[int], Any]]:
    """Give a function that is told how many more `unit`s are done, and shows it; without `show` it does nothing."""
    if not show:
        yield lambda more: None
        return
    from aiscache.bars import Bar  # tqdm, which who shows nothing need not wait for

    with Bar(desc=title, unit=f" {unit}", unit_scale=True, total=total, disable=None, leave=False) as bar:
        yield bar.update
