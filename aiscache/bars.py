"""Progress bars: on a terminal only, and without what tqdm would leave behind."""

from __future__ import annotations

from tqdm import tqdm


class Bar(tqdm):  # type: ignore[type-arg]
    """tqdm without its monitor thread, which would stay for the life of the process, also in those forked from it.

    With `disable=None` nothing is shown if stderr is no terminal.
    """

    monitor_interval = 0


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
