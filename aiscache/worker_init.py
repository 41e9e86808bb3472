"""What a DataLoader's worker does first: see to it that it outlives neither its trainer nor Ctrl-C.

torch's workers look every five seconds whether their parent lives. One whose pipe is full when the trainer is killed
never ends at all: at exit it waits for a reader, and the other workers, which inherited the reading end, wait too.

The same with Ctrl-C, which goes to all of them: 1. A worker is interrupted before the trainer has told it to end. 2. At
exit it waits until its pipe is read. 3. The trainer does not read any more, and waits five seconds for the worker.

A notebook's trainer may never tell it to end: it keeps the error, and in its frames the loader's iterator. And in the
worker, KeyboardInterrupt is dropped where it is raised in something that Python calls on its own, as when urllib3
closes a connection that the collector found; or it leaves a lock taken, for which the worker waits at exit; or it comes
late: 1. Python notes SIGINT. 2. A system call begins, and nobody interrupts that: torch waits five seconds for a batch.
"""

from __future__ import annotations

import multiprocessing.util
import os
import select
import signal
import threading
from collections.abc import Callable

from aiscache.uninterrupted import raises_keyboard_interrupt

_BEFORE_QUEUES_ARE_JOINED = -1  # `multiprocessing.Queue` joins its feeder with priority -5
_FEEDER_GRACE_S = 0.1
_INTERRUPT_GRACE_S = 0.5


class WorkerInit:
    """A `worker_init_fn` that lets the worker end with its trainer, and then calls the user's, if there is one."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker_id: int) -> None:
        """Do it, in the worker."""
        watch()
        multiprocessing.util.Finalize(None, _leave_what_nobody_reads, exitpriority=_BEFORE_QUEUES_ARE_JOINED)
        if self.then is not None:
            self.then(worker_id)


def watch() -> None:
    """End this process when its parent ends, at once, or half a second after Ctrl-C, whatever its threads wait for.

    Ctrl-C is left alone where it does not raise KeyboardInterrupt: a trainer that stops in its own way has workers that
    do, if they are forked.
    """
    signals, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(_parent(), signals), name="aiscache-watch", daemon=True).start()


def _parent() -> list[int]:
    """Return a descriptor that becomes readable when the parent ends, in a list; none if the kernel has no such."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return []
    try:
        return [os.pidfd_open(parent.pid)]
    except ProcessLookupError:  # it ended already
        os._exit(1)
    except OSError:  # a kernel before 5.3: torch's own watching has to do
        return []


def _end(parent: list[int], signals: int) -> None:
    """Wait for what ends this process, and end it."""
    waiting = select.poll()
    for descriptor in (*parent, signals):
        waiting.register(descriptor, select.POLLIN)
    while [descriptor for descriptor, _ in waiting.poll()] == [signals]:
        if signal.SIGINT in os.read(signals, 4096):
            waiting.unregister(signals)
            waiting.poll(_INTERRUPT_GRACE_S * 1000)
            if raises_keyboard_interrupt():
                os._exit(0)  # as one that Ctrl-C ended by itself: torch would raise an error for any other status
            waiting.register(signals, select.POLLIN)
    os._exit(1)


def _leave_what_nobody_reads() -> None:
    """End the process now if a feeder is stuck in a pipe: all else is closed, and its data is of no more use."""
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread" and thread.is_alive():  # else it was interrupted before it ran
            thread.join(_FEEDER_GRACE_S)
            if thread.is_alive():
                os._exit(0)
