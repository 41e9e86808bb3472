"""The pool process: holds the plan, gives work to the worker processes, and ends with its parent.

It imports no torch and runs one thread, so that it can fork its workers: they share its memory, and start in
milliseconds. Who dies is noticed by the kernel: the trainer's link ends, or its process does (a forked child of the
trainer may hold the link open); a worker's link ends; and workers are sent SIGTERM when the pool dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import select
import signal
import socket
import time
from dataclasses import dataclass

from aiscache.errors import ManifestError
from aiscache.prefetch.epoch import RunningEpoch
from aiscache.prefetch.job import Job
from aiscache.prefetch.messages import EPOCH, LONGEST, link, pack_chunk, unpack_event, unpack_report
from aiscache.prefetch.page import COPIED, Page, PrefetchStats
from aiscache.prefetch.worker import Worker

_LOG = logging.getLogger("aiscache")

RESPAWNS = 3  # workers that are replaced in an epoch
_TICK_S = 0.005  # how often the clock is looked at while something waits for it
_IDLE_S = 0.2
_TELL_S = 0.01  # how often the trainer is told what is done
_GRACE_S = 0.4  # how long workers have to close the store
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Member:
    """A worker process, as the pool knows it."""

    pid: int
    link: socket.socket


class Pool:
    """The pool's loop. `run` returns when the trainer is gone, or has closed its link."""

    def __init__(self, trainer: socket.socket, *, job: Job, page: Page, parent: int) -> None:
        self._trainer = trainer
        self._job = job
        self._page = page
        self._parent = _pidfd(parent)
        self._members: dict[int, _Member] = {}
        self._epoch = RunningEpoch(job, page, number=0, start=0)
        self._copied = 0  # rows taken out of the ring
        self._respawns = RESPAWNS
        self._deaths = 0
        self._killed = False
        self._open = True
        self._told_at = 0.0
        self._untold = True

    def run(self) -> None:
        """Serve until the end, then end all workers; at most a second."""
        try:
            for _ in range(self._job.processes):
                self._spawn()
            while self._open:
                self._turn()
        finally:
            self._end()

    def _turn(self) -> None:
        self._epoch.move()
        for number, work in self._epoch.assign():
            with contextlib.suppress(OSError):  # it died: its link will say so
                self._members[number].link.send(pack_chunk(self._epoch.number, work))
        self._tell()
        links = {member.link.fileno(): number for number, member in self._members.items()}
        timeout_s = _TICK_S if self._epoch.waits() else _TELL_S if self._untold else _IDLE_S
        trainer = self._trainer.fileno()
        ready, _, _ = select.select([trainer, *self._parent, *links], [], [], timeout_s)
        self._untold = self._untold or bool(ready)
        for source in ready:
            if source in links:
                self._hear(links[source])
            elif source == trainer:
                self._listen()
            else:
                self._open = False

    # ---- the trainer

    def _tell(self) -> None:
        """Write what was done so far to the page, now and then: making it up takes as long as planning a fetch."""
        now = time.monotonic()
        if now - self._told_at >= _TELL_S:
            self._page.set_stats(self._epoch.stats(workers=len(self._members), deaths=self._deaths))
            self._told_at, self._untold = now, False

    def _listen(self) -> None:
        """Take one event of the trainer's."""
        packet = self._trainer.recv(LONGEST)
        if not packet:
            self._open = False
            return
        kind, epoch, number = unpack_event(packet)
        if kind == EPOCH:
            self._epoch = self._epoch.followed_by(epoch, start=number, workers=self._members)
            self._respawns = RESPAWNS
            while len(self._members) < self._job.processes:
                self._spawn()
            return
        rows = self._page.rows(self._copied, number)
        self._copied += number
        self._page.words[COPIED] = self._copied
        if epoch == self._epoch.number:
            self._epoch.extend(rows)

    # ---- the workers

    def _hear(self, number: int) -> None:
        """Take one report of a worker's, or its end."""
        member = self._members[number]
        try:
            packet = member.link.recv(LONGEST)
        except OSError:
            packet = b""
        if not packet:
            self._bury(number)
            return
        epoch, settled = unpack_report(packet)
        if epoch == self._epoch.number:
            for position, outcome, size in settled:
                self._epoch.settle(number, position, outcome, size)

    def _bury(self, number: int) -> None:
        """A worker died: its work returns to the plan, and another takes its place, a bounded number of times."""
        member = self._members.pop(number)
        member.link.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(member.pid, 0)[1])
        _LOG.debug("worker %d of the prefetcher ended with status %d", member.pid, status)
        self._deaths += 1
        self._killed = True
        self._epoch.leave(number)
        if self._respawns:
            self._respawns -= 1
            self._spawn()

    def _spawn(self) -> None:
        """Fork a worker."""
        ours, theirs = link()
        gc.freeze()  # what is there now is not written to by the child's collector
        pid = os.fork()
        if pid == 0:
            self._become_worker(theirs, [ours])
        theirs.close()
        self._members[pid] = _Member(pid, ours)
        self._epoch.join(pid)

    def _become_worker(self, link: socket.socket, others: list[socket.socket]) -> None:
        """Work, in the forked child, and end it: nothing of the pool's runs here after this."""
        status = 1
        try:
            _end_with_parent()
            signal.signal(signal.SIGTERM, _stop)
            for other in (*others, self._trainer, *(member.link for member in self._members.values())):
                other.close()
            for fd in self._parent:
                os.close(fd)
            work(link, job=self._job, page=self._page)
            status = 0
        except (BrokenPipeError, ConnectionResetError, _Stopped):
            status = 0
        except BaseException:
            _LOG.exception("a worker of the prefetcher failed")
        finally:
            os._exit(status)

    # ---- the end

    def _end(self) -> None:
        """End the workers: they close the store; who does not within the grace is killed.

        By a signal, as a worker may be waiting for the cluster. The links stay open meanwhile: a worker that saw its
        link end would begin to close the store, and be interrupted in that by the signal.
        """
        members = list(self._members.values())
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while members and time.monotonic() < deadline:
            members = [member for member in members if os.waitpid(member.pid, os.WNOHANG)[0] == 0]
            time.sleep(0.002)
        for member in members:
            self._killed = True
            os.kill(member.pid, signal.SIGKILL)
            os.waitpid(member.pid, 0)
        if self._killed:  # whoever opens the cache next would do the same
            with contextlib.closing(self._job.cache) as cache:
                cache.store()


class _Stopped(BaseException):
    """A worker was told to end."""


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped


def work(link: socket.socket, *, job: Job, page: Page) -> None:
    """Be a worker until the link ends."""
    with contextlib.closing(job.cache) as cache:
        store = cache.store()
        if store is None:  # it could not be opened here; the trainer has it open, so this passes
            return
        try:
            Worker(link, job=job, page=page, store=store).run()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the pool dies (the pool has one thread, which is what the kernel looks at)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _pidfd(pid: int) -> list[int]:
    """Return a descriptor that becomes readable when the process ends, in a list; none if the kernel has no such."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return []
    if os.getppid() != pid:  # it ended before: the descriptor may be of another process with its number
        raise SystemExit(0)
    return [fd]


def main(fd: int, parent: int, directory: str) -> None:
    """Be the pool: the trainer's link is stdin, the page lies behind `fd`. Ctrl-C is the trainer's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(directory)
    trainer = socket.socket(fileno=os.dup(0))
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    try:
        job = pickle.loads(trainer.recv(1 << 20))  # noqa: S301  (from our own parent, over a link that only it has)
    except (ManifestError, EOFError, OSError):
        # 1. A short epoch ends. 2. The trainer ends, and the unnamed cache, listing included, goes with it. 3. We come
        # here. There is nobody to fetch for; a trainer that does live hears of our end from the link.
        return
    Pool(trainer, job=job, page=Page(fd), parent=parent).run()


__all__ = ["Pool", "PrefetchStats", "main", "work"]
