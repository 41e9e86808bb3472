"""One run of requests through an engine: starts them, retries them, watches over their time, hands out what ended.

All in one thread and without blocking on any single request: waits before a retry are entries of a heap, and a
silent connection is found by a sweep. The clock stands still while the caller keeps the generator waiting, so that
a slow consumer is not taken for a slow cluster.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Iterator
from itertools import count
from time import monotonic, sleep

from aiscache.errors import OriginError, OriginTimeoutError
from aiscache.keys import ObjectRef
from aiscache.origin.decide import AskProxy, Done, Failed, Follow, Judge
from aiscache.origin.engine import Engine
from aiscache.origin.fetched import Sink
from aiscache.origin.outcome import Broken, Outcome
from aiscache.origin.routes import Routes
from aiscache.origin.settings import LEAST_RATE, OriginSettings
from aiscache.origin.task import MAP, Task
from aiscache.origin.wire import Wire

_SWEEP_S = 0.25
_ASK_AGAIN_S = 0.005

_log = logging.getLogger("aiscache")


class Run:
    """A run of tasks with one engine; `results` is a generator and cleans up when it is closed."""

    def __init__(self, engine: Engine, routes: Routes, *, settings: OriginSettings, sink: Sink, in_flight: int) -> None:
        self._engine = engine
        self._routes = routes
        self._settings = settings
        self._judge = Judge(settings.retry, settings.endpoint)
        self._sink = sink
        self._in_flight = max(1, in_flight)
        # wire -> [progress when last looked at, when it last moved, when it began]
        self._active: dict[Wire, list[float]] = {}
        self._waiting: list[tuple[float, int, Task]] = []
        self._ended: deque[Task] = deque()
        self._order = count()
        self._paused_s = 0.0
        self._next_sweep = 0.0
        self._longest_wait_s = _SWEEP_S

    def now(self) -> float:
        """Seconds, without those in which the caller kept us waiting."""
        return monotonic() - self._paused_s

    def results(self, tasks: Iterator[Task | None]) -> Iterator[Task]:
        """Yield each task when it has ended, in the order of ending.

        A None among the tasks says that there is none at the moment: they are asked again soon, and the run ends if
        there is nothing under way.
        """
        try:
            more = True
            while True:
                more = self._fill(tasks, more)
                if not self._active and not self._waiting:
                    return
                self._turn()
                while self._ended:
                    left_at = monotonic()
                    task = self._ended.popleft()
                    task.ready = len(self._ended)
                    yield task
                    self._paused_s += monotonic() - left_at
                    if self._engine.forked:
                        raise OriginError(
                            "a fetch that was started before a fork cannot go on in the child; fetch anew"
                        )
        finally:
            self._abandon()

    def _fill(self, tasks: Iterator[Task | None], more: bool) -> bool:
        """Start what may be started; return whether `tasks` may have more."""
        while self._waiting and self._waiting[0][0] <= self.now() and len(self._active) < self._in_flight:
            self._start(heapq.heappop(self._waiting)[2])
        self._longest_wait_s = _SWEEP_S
        while more and len(self._active) < self._in_flight and len(self._waiting) < self._in_flight:
            try:
                task = next(tasks)
            except StopIteration:
                return False
            if task is None:
                self._longest_wait_s = _ASK_AGAIN_S
                return True
            task.began = self.now()
            task.deadline += task.began
            self._aim(task, self._routes.owner(task))
            self._start(task)
        return more

    def _aim(self, task: Task, owner: str | None) -> None:
        task.direct = owner is not None
        task.node = owner or self._settings.endpoint
        task.url = ""
        task.hops = 0
        task.attempts += 1

    def _start(self, task: Task) -> None:
        wire = self._engine.wire()
        wire.start(task, self._sink)
        now = self.now()
        self._active[wire] = [0, now, now]
        self._engine.multi.add_handle(wire.curl)

    def _turn(self) -> None:
        ended = self._engine.ended()
        for wire, code, message in ended:
            self._end(wire, wire.finish(code, message))
        for wire in [wire for wire in self._active if wire.is_loaded()]:
            outcome = wire.take()
            if outcome is not None:
                self._end(wire, outcome)
        now = self.now()
        if now >= self._next_sweep:
            self._sweep(now)
        if not ended:
            due_s = self._waiting[0][0] - now if self._waiting else _SWEEP_S
            timeout_s = max(0.0, min(due_s, self._next_sweep - now, self._longest_wait_s))
            if self._active:
                self._engine.wait(timeout_s)
            else:
                sleep(timeout_s)  # libcurl has nothing to wait for

    def _end(self, wire: Wire, outcome: Outcome) -> None:
        """Take a wire from its task and do with the task what the outcome asks for."""
        task = wire.task
        body = wire.other_body if task.verb == MAP else b""
        del self._active[wire]
        self._engine.release(wire)
        if isinstance(outcome, Broken) and (outcome.timed_out or not outcome.connected):
            self._routes.distrust(task.node)
        match self._judge.decide(task, outcome):
            case Done():
                self._close(task, body)
            case Failed(error):
                task.error = error
                self._close(task, None)
            case Follow(url):
                task.direct, task.url, task.node = False, url, "/".join(url.split("/", 3)[:3])
                self._start(task)
            case AskProxy(delay_s, stale_map):
                self._again(task, delay_s, outcome)
                if stale_map and task.verb != MAP:
                    self._refresh_map()

    def _again(self, task: Task, delay_s: float, outcome: Outcome) -> None:
        if self.now() + delay_s > task.deadline:
            self._expire(task, f"the last try ended with: {outcome}")
            return
        _log.debug("%s from %s: %s; trying again in %.1f s", task.label, task.node, outcome, delay_s)
        self._aim(task, None)
        heapq.heappush(self._waiting, (self.now() + delay_s, next(self._order), task))

    def _close(self, task: Task, body: bytes | None) -> None:
        if task.verb == MAP:
            try:
                self._routes.adopt(body)
            except OriginError as error:
                task.error = error
        if task.index >= 0:
            task.took_s = self.now() - task.began
            self._ended.append(task)
        elif task.error is not None:
            _log.debug("the cluster map stays as it was: %s", str(task.error))

    def _refresh_map(self) -> None:
        if self._routes.wants_map():
            task = map_task(self._settings, index=-1)
            task.deadline += self.now()
            self._aim(task, None)
            self._start(task)

    def _sweep(self, now: float) -> None:
        """End what does not move, what only trickles in, and what has used up all of its time."""
        self._next_sweep = now + _SWEEP_S
        for wire, seen in list(self._active.items()):
            task, progress = wire.task, wire.progress()
            if progress != seen[0]:
                seen[:2] = [progress, now]
            limit_s = self._settings.read_timeout_s if progress else self._settings.attempt_s
            rescue_s = wire.received / LEAST_RATE
            if now - seen[1] > limit_s:
                self._end(wire, wire.silent(limit_s))
            elif now - seen[2] > self._settings.attempt_s + rescue_s:
                self._end(wire, wire.slow(now - seen[2]))
            elif now > task.deadline + rescue_s:
                received = wire.received
                del self._active[wire]
                self._engine.release(wire)
                self._expire(task, f"{received:,} bytes of it had come")

    def _expire(self, task: Task, why: str) -> None:
        text = (
            f"{task.label} was not read within the time that the retry policy allows, in {task.attempts} tries; {why}"
        )
        task.error = OriginTimeoutError(
            f"{text} (cluster at {self._settings.endpoint})", url=task.label, target=task.node
        )
        self._close(task, None)

    def _abandon(self) -> None:
        """Give back every wire; connections in the middle of a response are closed by libcurl."""
        for wire in list(self._active):
            if wire.task.verb == MAP:
                self._routes.adopt(None)
            self._engine.release(wire)
        self._active.clear()
        self._waiting.clear()


def map_task(settings: OriginSettings, *, index: int) -> Task:
    """Return the request for the cluster map; with index -1 its end is not handed out."""
    nothing = ObjectRef(cluster="", provider="ais", bucket="", name="")
    deadline = settings.retry.budget_s(settings.attempt_s)
    return Task(MAP, "/v1/daemon?what=smap", index=index, ref=nothing, deadline=deadline)
