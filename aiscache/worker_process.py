"""`ForkProcess`, `SpawnProcess`, `ForkServerProcess`: processes that Ctrl-C does not tear apart while they start.

Python calls hooks around a fork (of `logging`, `threading`, `random`, ours), and prints and drops what they raise. A
SIGINT that comes during the fork, which takes milliseconds in a large process, is handled in the first hook after it.
So a trainer that starts a worker just when Ctrl-C comes goes on as if there had been none, and waits for its workers;
and a worker

1. has ended, as it was told too; or
2. has lost what the hook was to do: without a part of `threading`'s, it waits in the end for threads of the trainer; or
3. does not know, since a new process forgets the signals that came before its first hook.

One that is spawned imports torch first, for seconds. If KeyboardInterrupt ends it there, a notebook has its traceback,
and torch raises a RuntimeError wherever the trainer is then, for a worker that was killed by a signal.
"""

from __future__ import annotations

import signal
from multiprocessing import context, process, resource_tracker

import numpy.random  # noqa: F401  # else each worker imports it, for 20 ms in which Cython may swallow KeyboardInterrupt

from aiscache.uninterrupted import Uninterrupted, end_inherited


class _InOnePiece(process.BaseProcess):
    """A process that is started or not, and that KeyboardInterrupt ends quietly. SIGINT waits until its target runs."""

    _mask: set[int]

    def start(self) -> None:
        """Start it; if that is interrupted, there is no such process when KeyboardInterrupt is raised."""
        try:
            with Uninterrupted():
                self._mask = set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})))
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
        """Handle the SIGINT that came since the start, then run the target."""
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            end_inherited()
            super().run()
        except KeyboardInterrupt:
            pass


class ForkProcess(_InOnePiece, context.ForkProcess):
    """One that is forked."""


class SpawnProcess(_InOnePiece, context.SpawnProcess):
    """One that is started as a program."""

    def start(self) -> None:
        """Start it; if that is interrupted, there is no such process when KeyboardInterrupt is raised."""
        resource_tracker.ensure_running()  # which lets SIGINT through when it starts it
        super().start()


class ForkServerProcess(_InOnePiece, context.ForkServerProcess):
    """One that is forked by a process of their own."""
