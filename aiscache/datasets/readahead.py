"""Reading ahead in order: while one window of samples is consumed, the next one is being fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")

_FIRST_WINDOW = 4  # so that the first sample is there soon
_LONGEST_WINDOW = 64


def read_ahead(indices: Iterator[int], read: Callable[[Sequence[int]], list[Item]]) -> Iterator[Item]:
    """Yield `read([index])[0]` for each index, in order, calling `read` with growing windows, one ahead.

    What `read` raises is raised where the window would have begun. Closing the iterator waits for the window under way.
    """
    return read_windows(_growing(indices), read)


def read_windows(windows: Iterator[list[int]], read: Callable[[list[int]], list[Item]]) -> Iterator[Item]:
    """Yield what `read` makes of each window, in order, while the next window is being read."""
    with ThreadPoolExecutor(1, thread_name_prefix="aiscache-readahead") as ahead:
        coming: Future[list[Item]] | None = None
        while True:
            window = next(windows, None)
            following = ahead.submit(read, window) if window else None
            if coming is not None:
                yield from coming.result()
            if following is None:
                return
            coming = following


def _growing(indices: Iterator[int]) -> Iterator[list[int]]:
    size = _FIRST_WINDOW
    while window := list(islice(indices, size)):
        yield window
        size = min(2 * size, _LONGEST_WINDOW)
