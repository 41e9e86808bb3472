"""`ForkProcess`: multiprocessing's way to start a process by a fork, which Ctrl-C does not tear apart.

Python calls hooks around a fork (of `logging`, `threading`, `random`, ours), and prints and drops what they raise. A
SIGINT that comes during the fork, which takes milliseconds in a large process, is handled in the first hook after it.
So a trainer that starts a worker just when Ctrl-C comes goes on as if there had been none, and waits for its workers;
and a worker

1. has ended, as it was told too; or
2. has lost what the hook was to do: without a part of `threading`'s, it waits in the end for threads of the trainer; or
3. does not know, since a new process forgets the signals that came before its first hook.
"""

from __future__ import annotations

import signal
from multiprocessing import context

import numpy.random  # noqa: F401  # else each worker imports it, for 20 ms in which Cython may swallow KeyboardInterrupt

from aiscache.uninterrupted import Uninterrupted, end_inherited


class ForkProcess(context.ForkProcess):
    """A process that is started in one piece, and that KeyboardInterrupt ends quietly."""

    _mask: set[int]

    def start(self) -> None:
        """Start it; if that is interrupted, there is no such process when KeyboardInterrupt is raised."""
        try:
            with Uninterrupted():
                self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    super().start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        except KeyboardInterrupt:
            if self.pid is not None:  # the caller has not noted it yet
                self.kill()
                self.join()
            raise

    def run(self) -> None:
        """Handle the SIGINT that came since the fork, then run the target."""
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            end_inherited()
            super().run()
        except KeyboardInterrupt:
            pass
