"""`Queue` and `Event`: what a trainer and its workers talk over, which Ctrl-C does not leave locked.

Those of multiprocessing take locks in Python code, so that KeyboardInterrupt may come when a lock was taken, and nobody
is going to let it go:

1. A worker is interrupted while it puts a batch. 2. At its end it tells the thread that feeds the pipe to end too, and
   waits for the lock that it has itself, as long as its trainer lives.

1. A worker is interrupted, or killed, while it looks whether it is to end. 2. An event has one lock for all processes:
   the trainer, which is to tell the others to end, waits for ever.
"""

from __future__ import annotations

from multiprocessing import queues, synchronize

from aiscache.uninterrupted import Uninterrupted


class Queue(queues.Queue):  # type: ignore[type-arg]
    """A queue into which an object is put, or not. Without a `maxsize`, putting takes no more than microseconds."""

    def put(self, obj: object, block: bool = True, timeout: float | None = None) -> None:
        """Put an object; a thread of the queue's pickles and sends it."""
        with Uninterrupted():
            super().put(obj, block, timeout)

    def close(self) -> None:
        """Put no more; the thread ends when all is sent."""
        with Uninterrupted():
            super().close()


class Event(synchronize.Event):
    """An event that is looked at without its lock."""

    def is_set(self) -> bool:
        """Return whether it is set."""
        return not self._flag._semlock._is_zero()  # type: ignore[attr-defined]

    def set(self) -> None:
        """Set it, once and for all."""
        with Uninterrupted():
            super().set()
