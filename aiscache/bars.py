"""Progress bars: on a terminal only, and without what tqdm would leave behind."""

from __future__ import annotations

import os
from typing import Any

from tqdm import tqdm

_WIDTH, _HEIGHT = 79, 24  # where the terminal does not tell
_STDERR = 2


class Bar(tqdm):  # type: ignore[type-arg]
    """tqdm without its monitor thread, which would stay for the life of the process, also in those forked from it.

    With `disable=None` nothing is shown if stderr is no terminal.
    """

    monitor_interval = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if not _columns():
            options |= {"ncols": _WIDTH, "nrows": _HEIGHT, "dynamic_ncols": False}
        super().__init__(*arguments, **options)


def _columns() -> int:
    """Return the width of the terminal; 0 if there is none, and where a container's does not tell."""
    try:
        return os.get_terminal_size(_STDERR).columns
    except OSError:
        return 0


class ObjectsBar:
    """A bar of bytes that also counts objects; a context manager. `move` may be called as often as one likes."""

    def __init__(self, title: str, *, objects: int, size_bytes: int, show: bool = True) -> None:
        self._objects = objects
        self._bar = Bar(
            total=size_bytes or None,
            desc=title,
            unit="B",
            unit_scale=True,
            disable=None if show else True,
            leave=False,
            dynamic_ncols=True,
        )

    def move(self, *, objects: int, size_bytes: int) -> None:
        """Show how far it is, counted from the start."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{objects:,} of {self._objects:,} objects", refresh=False)
            self._bar.update(size_bytes - self._bar.n)

    def __enter__(self) -> ObjectsBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
