"""What a DataLoader's worker does first: see to it that it outlives neither its trainer nor Ctrl-C.

torch's workers look every five seconds whether their parent lives. One whose pipe is full when the trainer is killed
never ends at all: at exit it waits for a reader, and the other workers, which inherited the reading end, wait too.

The same with Ctrl-C, which goes to all of them: 1. A worker is interrupted before the trainer has told it to end. 2. At
exit it waits until its pipe is read. 3. The trainer does not read any more, and waits five seconds for the worker.
"""

from __future__ import annotations

import multiprocessing.util
import os
import select
import threading
from collections.abc import Callable

_BEFORE_QUEUES_ARE_JOINED = -1  # `multiprocessing.Queue` joins its feeder with priority -5
_GRACE_S = 0.1


class WorkerInit:
    """A `worker_init_fn` that lets the worker end with its trainer, and then calls the user's, if there is one."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker_id: int) -> None:
        """Do it, in the worker."""
        watch_parent()
        multiprocessing.util.Finalize(None, _leave_what_nobody_reads, exitpriority=_BEFORE_QUEUES_ARE_JOINED)
        if self.then is not None:
            self.then(worker_id)


def watch_parent() -> None:
    """End this process at once when the one that started it ends, whatever its other threads wait for."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    try:
        descriptor = os.pidfd_open(parent.pid)
    except ProcessLookupError:  # it ended already
        os._exit(1)
    except OSError:  # a kernel before 5.3: torch's own watching has to do
        return
    threading.Thread(target=_end_with, args=(descriptor,), name="aiscache-parent", daemon=True).start()


def _end_with(descriptor: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    waiting.poll()
    os._exit(1)


def _leave_what_nobody_reads() -> None:
    """End the process now if a feeder is stuck in a pipe: all else is closed, and its data is of no more use."""
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread" and thread.is_alive():  # else it was interrupted before it ran
            thread.join(_GRACE_S)
            if thread.is_alive():
                os._exit(0)
