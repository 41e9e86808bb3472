"""`Uninterrupted`: a step that Ctrl-C does not tear apart.

Python raises KeyboardInterrupt between any two bytecodes of the main thread, also just after a lock was taken or a
reservation made, and before anybody has noted it. A notebook keeps the error with its frames, and so what they hold: a
transaction of LMDB that is kept like that would stop all writers of the machine.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of handlers, which takes ten times as long
from signal import SIGINT
from threading import get_ident, main_thread
from typing import Any


class Uninterrupted:
    """A context in which SIGINT is noted, and handled at its end; 2 us. For steps of milliseconds; may be nested.

    An inner one does nothing: it takes a quarter of that.
    """

    __slots__ = ("_before", "_caught")

    def __init__(self) -> None:
        self._before: Any = None
        self._caught: tuple[Any, ...] | None = None

    def __enter__(self) -> None:
        if get_ident() != main_thread().ident:
            return
        before = _signal.getsignal(SIGINT)
        if callable(before) and not isinstance(getattr(before, "__self__", None), Uninterrupted):
            self._before = before
            _signal.signal(SIGINT, self._note)

    def _note(self, *signal: Any) -> None:
        self._caught = signal

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _signal.signal(SIGINT, self._before)
            caught, self._caught = self._caught, None
            if caught is not None:
                self._before(*caught)


def end_inherited() -> None:
    """End the steps that this process was forked in the middle of: what SIGINT it had so far is handled here."""
    while isinstance(step := getattr(_signal.getsignal(SIGINT), "__self__", None), Uninterrupted):
        step.__exit__()
