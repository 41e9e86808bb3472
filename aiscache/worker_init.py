"""What a DataLoader's worker does first: see to it that it does not outlive its trainer.

torch's workers look every five seconds whether their parent lives. One whose pipe is full when the trainer is killed
never ends at all: at exit it waits for a reader, and the other workers, which inherited the reading end, wait too.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import threading
from collections.abc import Callable


class WorkerInit:
    """A `worker_init_fn` that lets the worker end with its trainer, and then calls the user's, if there is one."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker_id: int) -> None:
        """Do it, in the worker."""
        watch_parent()
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
