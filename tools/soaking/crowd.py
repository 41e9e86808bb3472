"""`Crowd`: the participants as the conductor sees them: started, listened to, stopped, killed, waited for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil

from tests.forks import ForkServer
from tests.prefetch.processes import command_of
from tools.soaking.figures import Figures
from tools.soaking.job import Job
from tools.soaking.moments import SLOTS, Moments
from tools.soaking.processes import Stops, below, is_being_spawned, is_of_a_pool

_ORPHAN_S = 20.0  # what a process may take to end after the one that it works for, on a busy machine
_SPAWNED_S = 120.0  # and one that is still importing what it needs, beside all the others
_CLOSE_S = 60.0


@dataclass
class Participant:
    """The near end of one process. `killed_below` is when a process below it was killed last."""

    job: Job
    pid: int
    pipe: socket.socket
    unread: bytes = b""
    killed_below: float = -1e9
    ended: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)

    def order(self, word: str) -> None:
        try:
            self.pipe.sendall(f"{word}\n".encode())
        except OSError:  # it ended
            self.ended = True

    def receive(self) -> list[dict[str, Any]]:
        """Return what it has told since; a line that it was killed in the middle of is lost."""
        try:
            while piece := self.pipe.recv(1 << 16, socket.MSG_DONTWAIT):
                self.unread += piece
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True
        *whole, self.unread = self.unread.split(b"\n")
        return [json.loads(line) for line in whole]


class Crowd:
    """All participants. `hear` takes in what they tell, and finds those that hang, ended or left something."""

    def __init__(self, job: Job, *, figures: Figures, moments: Moments, log: Any) -> None:
        self._job, self._figures, self._moments = job, figures, moments
        self._server = ForkServer("tools.soaking.participant", stderr=log, stdout=log, start_new_session=True)
        self._orphans: dict[psutil.Process, tuple[float, bool]] = {}
        self._free_slots = list(range(SLOTS))
        self._longest_s = job.longest_read_s()
        self.stops = Stops(figures)
        self.present: list[Participant] = []
        figures.read_bound_s = self._longest_s

    # ---- coming and going

    def start(self, role: str, seed: int, **changes: Any) -> Participant:
        slot = self._free_slots.pop(0)
        self._moments.end(slot)
        job = replace(self._job, role=role, seed=seed, slot=slot, **changes)
        pid, pipe = self._server.start("tools.soaking.participant")
        pipe.sendall(json.dumps(asdict(job)).encode() + b"\n")
        participant = Participant(job, pid, pipe)
        self.present.append(participant)
        self._figures.participants += 1
        return participant

    def kill(self, participant: Participant) -> None:
        """End one by SIGKILL; what is below it must end by itself."""
        children = below(participant.pid)
        strict = self._moments.workers_end(participant.job.slot)
        os.kill(participant.pid, signal.SIGKILL)
        self._figures.kills[participant.job.role] += 1
        self._take_leave(participant)
        self._wait_for(children, strict=strict)

    def kill_below(self, participant: Participant, process: psutil.Process) -> None:
        """Kill a DataLoader worker, a pool or one of its workers."""
        children = below(process.pid)
        participant.killed_below = time.monotonic()
        try:
            kind = "pool process" if is_of_a_pool(process) else "DataLoader worker or child"
            process.kill()
        except psutil.NoSuchProcess:
            return
        self._figures.kills[kind] += 1
        self._wait_for(children, strict=True)

    def end(self, participant: Participant) -> None:
        """Have one end in good order, and wait for it."""
        participant.order("end")
        if not self.wait(lambda: participant.ended, timeout_s=self._longest_s + _CLOSE_S):
            self._hangs(participant, "it does not end when told to")

    def _wait_for(self, processes: list[psutil.Process], *, strict: bool) -> None:
        """Look whether processes end; that they do not is wrong if `strict`, or if they are of a pool."""
        now = time.monotonic()
        for process in processes:
            ours = strict or is_of_a_pool(process)
            limit = _SPAWNED_S if ours and is_being_spawned(process) else _ORPHAN_S
            self._orphans[process] = now + limit, ours

    def _take_leave(self, participant: Participant) -> None:
        """Let one go that ended or was killed; return its exit code."""
        self.stops.end_for(participant.pid)
        self._note(participant)
        code = self._server.wait(participant.pid)
        self.present.remove(participant)
        participant.pipe.close()
        participant.ended = True
        self._free_slots.append(participant.job.slot)
        if code not in (0, -signal.SIGKILL):
            self._figures.broken(f"a {participant.job.role} ended with exit code {code}")

    # ---- listening

    def hear(self) -> None:
        """Take in what was told, let go of who ended, and look for hangs and for orphans."""
        self.stops.end_due()
        for participant in list(self.present):
            self._note(participant)
            if participant.ended:
                self._take_leave(participant)
        self._look_for_hangs()
        self._look_for_orphans()

    def wait(self, happened: Callable[[], bool], *, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                return False
            self.hear()
            time.sleep(0.01)
        return True

    def _note(self, participant: Participant) -> None:
        for told in participant.receive():
            participant.lines.append(told)
            self._count(participant, told)

    def _count(self, participant: Participant, told: dict[str, Any]) -> None:
        figures = self._figures
        figures.acts[told["act"]] += 1
        figures.reads += told["reads"]
        figures.bytes += told["bytes"]
        figures.errors.update(told["errors"])
        for wrong in told["wrong"]:
            figures.broken(f"{participant.job.role} (process {participant.pid}), {told['act']}: {wrong}")
        seconds, ended = told["slowest"]
        stopped_s = self.stops.overlap_s(ended - seconds, ended, owner=participant.pid)
        figures.slowest_read_s = max(figures.slowest_read_s, seconds - stopped_s)
        if seconds - stopped_s > self._longest_s:
            figures.broken(
                f"a read of a {participant.job.role} took {seconds:.1f} s, {stopped_s:.1f} s of them stopped"
            )

    def _look_for_hangs(self) -> None:
        now = time.monotonic()
        for participant in list(self.present):
            began = self._moments.since(participant.job.slot)
            if began is None:
                continue
            seconds = now - began - self.stops.overlap_s(began, now, owner=participant.pid)
            if seconds > self._longest_s + _CLOSE_S:
                self._hangs(participant, f"at one step for {seconds:.0f} s")

    def _hangs(self, participant: Participant, how: str) -> None:
        self._figures.broken(
            f"a {participant.job.role} (process {participant.pid}) hangs: {how}; its stack is in the log"
        )
        os.kill(participant.pid, signal.SIGUSR1)
        time.sleep(0.5)
        self.kill(participant)

    def _look_for_orphans(self) -> None:
        now = time.monotonic()
        for process, (deadline, strict) in list(self._orphans.items()):
            if not _lives(process):
                del self._orphans[process]
            elif now > deadline and process.status() != psutil.STATUS_STOPPED:
                del self._orphans[process]
                self._outlived(process, strict=strict)

    def _outlived(self, process: psutil.Process, *, strict: bool) -> None:
        """Kill what is left of a trainer. Workers of torch's own loader are known to stay; others must not."""
        if strict:
            self._figures.broken(
                f"process {process.pid} outlives the one that it worked for: {command_of(process.pid)}"
            )
        self._figures.kills["left over by a torch loader"] += 1
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()

    # ---- looking

    def all_processes(self) -> Iterator[tuple[Participant, psutil.Process]]:
        """Yield all processes below the participants."""
        for participant in self.present:
            for process in below(participant.pid):
                yield participant, process

    @property
    def has_orphans(self) -> bool:
        self._look_for_orphans()
        return bool(self._orphans)

    def close(self) -> None:
        self.stops.end_all()
        for participant in list(self.present):
            os.kill(participant.pid, signal.SIGKILL)
            self._take_leave(participant)
        self._server.close()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
