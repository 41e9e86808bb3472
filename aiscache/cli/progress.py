"""Progress: one line on a terminal that is written over; nothing anywhere else."""

from __future__ import annotations

import sys
import time

_CLEAR_LINE = "\r\x1b[K"
_INTERVAL_S = 0.1


class Progress:
    """The line, on stderr. `show` may be called often; `clear` before anything else is printed."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._shown_at = 0.0

    def show(self, text: str) -> None:
        """Write the line anew, ten times a second at most."""
        now = time.monotonic()
        if self._on and now - self._shown_at >= _INTERVAL_S:
            self._shown_at = now
            print(_CLEAR_LINE + text[:79], end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._on and self._shown_at:
            self._shown_at = 0.0
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)
