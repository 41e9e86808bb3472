"""Ctrl-C and SIGTERM: the first one ends the command at once, further ones do not disturb it while it tidies up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether a signal came that ends the command."""

    def __init__(self, *, kill_children: bool) -> None:
        self.signal = 0
        self._kill_children = kill_children

    @property
    def exit_code(self) -> int:
        """What shells report for a program that the signal ended: 130 for Ctrl-C."""
        return 128 + (self.signal or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt; kill this process's children first if tidying up is to have nobody to wait for.

        Those are nodes of a dev server and workers of a DataLoader: what they have is temporary. A pool that fills the
        cache is not killed: it ends by itself, in less than a second, with what it fetched in good order.
        """
        if self.signal:
            return
        self.signal = number
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker dies
        if self._kill_children:
            _kill_children()
        raise KeyboardInterrupt


@contextmanager
def interrupt_once(*, kill_children: bool) -> Iterator[Interrupt]:
    """Let the first SIGINT or SIGTERM raise KeyboardInterrupt, and ignore the next."""
    interrupt = Interrupt(kill_children=kill_children)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interrupt.handle) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _kill_children() -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
