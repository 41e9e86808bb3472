"""`Storm`: the middle of a round: objects are overwritten, requests go wrong, processes are stopped and killed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from aiscache.devserver import DevCluster
from tools.soaking.crowd import Crowd, Participant
from tools.soaking.faults import LEAVES, TROUBLES
from tools.soaking.figures import Figures
from tools.soaking.gauge import Gauge
from tools.soaking.job import Job
from tools.soaking.ledger import Ledger
from tools.soaking.objects import BUCKET, content, number_of
from tools.soaking.processes import below, holds_flights, is_being_spawned, is_of_a_pool

ROLES = ("reader", "reader", "trainer", "trainer", "caretaker")
_STAGERS = ("trainer", "witness")
_KILLED_LATELY_S = 15.0  # what a dead loader staged goes when somebody opens the cache, or makes room in it
_LONG_STOP_S = 33.0  # longer than anybody waits for another's fetch
_LOOKS_FOR_FLIGHTS = 30


class Storm:
    """What is done to the crowd, each thing at random times: `rage` for a while, then `calm`."""

    def __init__(
        self,
        crowd: Crowd,
        witness: Participant,
        *,
        cluster: DevCluster,
        job: Job,
        ledger: Ledger,
        names: list[str],
        figures: Figures,
        chance: random.Random,
    ) -> None:
        self._crowd, self._witness, self._cluster, self._job = crowd, witness, cluster, job
        self._ledger, self._names, self._figures, self._chance = ledger, names, figures, chance
        self._gauge = Gauge(job, figures)
        self._flights = Path(job.cache) / "flights"
        self._ends: dict[str, tuple[float, Callable[[], None]]] = {}  # troubles that are on
        self._stagers_killed: list[float] = []
        self._deeds: list[tuple[float, Callable[[], None]]] = [  # on average every so many seconds
            (0.15, self._overwrite),
            (1.5, self._trouble),
            (2.5, self._kill),
            (4.0, self._kill_below),
            (2.5, self._stop),
            (0.1, self._look),
        ]

    def rage(self, seconds: float, *, interrupted: Callable[[], bool], long_stop: bool) -> None:
        now = time.monotonic()
        until = now + seconds
        due = [now + self._chance.expovariate(1 / mean) for mean, _ in self._deeds]
        long_stop_at = now + seconds / 10 if long_stop else until
        while (now := time.monotonic()) < until and not interrupted():
            self._crowd.hear()
            self._fill_up()
            self._end_troubles(now)
            for number, (mean, deed) in enumerate(self._deeds):
                if now >= due[number]:
                    deed()
                    due[number] = time.monotonic() + self._chance.expovariate(1 / mean)
            if now >= long_stop_at and self._stop_with_flights(_LONG_STOP_S):
                long_stop_at = until
            time.sleep(0.01)

    def calm(self) -> None:
        """Let nothing be wrong any more."""
        self._end_troubles(float("inf"))
        self._cluster.clear_faults()
        self._crowd.stops.end_all()

    # ---- the crowd

    def _fill_up(self) -> None:
        present = [participant.job.role for participant in self._crowd.present]
        for role in sorted(set(ROLES)):
            for _ in range(ROLES.count(role) - present.count(role)):
                self._crowd.start(role, self._chance.randrange(1 << 30))

    def _kill(self) -> None:
        victim = self._chance.choice([one for one in self._crowd.present if one is not self._witness])
        if victim.job.role in _STAGERS:
            self._stagers_killed.append(time.monotonic())
        self._crowd.kill(victim)

    def _kill_below(self) -> None:
        found = [(one, process) for one, process in self._crowd.all_processes() if not is_being_spawned(process)]
        if found:
            participant, process = self._chance.choice(found)
            if is_of_a_pool(process):
                self._stagers_killed.append(time.monotonic())
            self._crowd.kill_below(participant, process)

    def _stop(self) -> None:
        seconds = self._chance.uniform(0.05, 2.0)
        if self._chance.random() < 0.5 and self._stop_with_flights(seconds):
            return
        pid, owner = self._anybody()
        self._crowd.stops.begin(pid, owner=owner, kind="anywhere", seconds=seconds)

    def _stop_with_flights(self, seconds: float) -> bool:
        """Stop somebody who is fetching something that others may want."""
        for _ in range(_LOOKS_FOR_FLIGHTS):
            pid, owner = self._anybody()
            if holds_flights(pid, self._flights):
                kind = "with flights" if seconds < _LONG_STOP_S else f"with flights, for {seconds:.0f} s"
                self._crowd.stops.begin(pid, owner=owner, kind=kind, seconds=seconds)
                return True
        return False

    def _anybody(self) -> tuple[int, int]:
        participant = self._chance.choice(self._crowd.present)
        pids = [participant.pid, *(process.pid for process in below(participant.pid))]
        return self._chance.choice(pids), participant.pid

    # ---- the cluster

    def _overwrite(self) -> None:
        if LEAVES in self._ends:
            return
        name = self._chance.choice(self._names)
        put(self._cluster, self._ledger, [name])
        self._figures.overwritten += 1

    def _trouble(self) -> None:
        trouble = self._chance.choice(TROUBLES)
        if trouble.name in self._ends or len(self._ends) > 2:
            return
        end = trouble.begin(self._cluster, self._chance) or self._clear_faults
        self._ends[trouble.name] = time.monotonic() + self._chance.uniform(0.2, 3.0), end
        self._figures.troubles[trouble.name] += 1

    def _end_troubles(self, now: float) -> None:
        for name, (until, end) in list(self._ends.items()):
            if now >= until:
                end()
                del self._ends[name]

    def _clear_faults(self) -> None:
        """End all faults of requests, as the cluster does not tell them apart."""
        self._cluster.clear_faults()

    # ---- the disk

    def _look(self) -> None:
        now = time.monotonic()
        self._stagers_killed = [at for at in self._stagers_killed if now - at < _KILLED_LATELY_S]
        alive = sum(participant.job.role in _STAGERS for participant in self._crowd.present)
        self._gauge.look(stagers=alive + len(self._stagers_killed))


def put(cluster: DevCluster, ledger: Ledger, names: list[str]) -> None:
    """Put the next version of objects."""
    numbers = [number_of(name) for name in names]
    ledger.begun[numbers] += 1
    cluster.put_many(BUCKET, {name: content(name, int(ledger.begun[number_of(name)])) for name in names})
    ledger.done[numbers] += 1
