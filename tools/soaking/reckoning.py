"""The end of a round: nobody is there any more, and what they left is looked at."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

from aiscache.cli.users import users_of
from aiscache.devserver import DevCluster
from tests.prefetch.processes import pss_bytes
from tools.soaking.crowd import Crowd, Participant
from tools.soaking.figures import Figures, Held
from tools.soaking.job import Job
from tools.soaking.processes import below, locks_under

_ORPHANS_S = 120.0
_AUDIT_S = 120.0
_ENDING_S = 3.0  # a process that was killed is gone from the list a moment before its locks are
_FILLERS = 4
_FILL_SLACK = 1.02  # GETs for each object: once, and a machine that is busy may try one again


def reckon(
    crowd: Crowd, witness: Participant, *, cluster: DevCluster, job: Job, figures: Figures, chance: random.Random
) -> None:
    """End all but the witness, who gives back all it holds; then audit, then fill the cache anew."""
    _end_all(crowd, witness, chance=chance)
    _look_at_witness(crowd, witness, figures=figures)
    if not crowd.wait(lambda: not crowd.has_orphans, timeout_s=_ORPHANS_S):
        figures.broken("processes remain although all participants have ended")
    path = Path(job.cache)
    crowd.wait(lambda: not locks_under(path), timeout_s=_ENDING_S)
    for lock in locks_under(path):
        figures.broken(f"a lock is held and nobody is there: {lock}")
    for user in users_of(path):
        figures.broken(f"process {user.pid} uses the cache and should be gone: {user.command}")
    for told in _run(crowd, [crowd.start("auditor", chance.randrange(1 << 30), patient=True)], figures=figures):
        figures.cache = told.get("stats", figures.cache)
    if figures.cache.get("checksum_failures"):
        figures.broken(f"{figures.cache['checksum_failures']:.0f} checksum failures were counted")
    _fill(crowd, cluster=cluster, figures=figures, chance=chance)


def _end_all(crowd: Crowd, witness: Participant, *, chance: random.Random) -> None:
    killed = chance.random() < 0.5
    others = [participant for participant in crowd.present if participant is not witness]
    for participant in others:
        if killed and participant in crowd.present:
            crowd.kill(participant)
        else:
            participant.order("end")
    for participant in others:
        if participant in crowd.present:
            crowd.end(participant)


def _look_at_witness(crowd: Crowd, witness: Participant, *, figures: Figures) -> None:
    told = len(witness.lines)
    witness.order("pause")
    rests = crowd.wait(
        lambda: any(line["act"] == "pause" for line in witness.lines[told:]), timeout_s=figures.read_bound_s + 60
    )
    if not rests:
        figures.broken("the witness does not come to rest")
        return
    folder = Path(f"/proc/{witness.pid}")
    figures.held.append(
        Held(
            files=len(list((folder / "fd").iterdir())),
            threads=len(list((folder / "task").iterdir())),
            pss_bytes=pss_bytes(witness.pid),
        )
    )
    for process in below(witness.pid):
        figures.broken(f"process {process.pid} of the witness lives on while it rests")


def _run(crowd: Crowd, participants: list[Participant], *, figures: Figures) -> list[dict[str, Any]]:
    """Wait for participants that end by themselves; return what they told."""
    for participant in participants:
        if not crowd.wait(partial(getattr, participant, "ended"), timeout_s=_AUDIT_S):
            figures.broken(f"the {participant.job.role} does not come to an end")
            crowd.kill(participant)
    told = [line for participant in participants for line in participant.lines]
    for line in told:
        if line["errors"]:
            figures.broken(f"errors, and nothing is wrong with the cluster: {line['errors']}")
    return told


def _fill(crowd: Crowd, *, cluster: DevCluster, figures: Figures, chance: random.Random) -> None:
    """Each object leaves the cluster once, however many read it at the same time."""
    figures.gets += cluster.requests()["GET"]
    cluster.reset_requests()
    seed = chance.randrange(1 << 30)
    told = _run(crowd, [crowd.start("filler", seed + n, patient=True) for n in range(_FILLERS)], figures=figures)
    objects = max((int(line.get("filled", 0)) for line in told), default=0)
    gets = cluster.requests()["GET"]
    figures.filled_objects += objects
    figures.fill_gets += gets
    if not objects or gets > objects * _FILL_SLACK:
        figures.broken(f"{objects} objects were fetched with {gets} GETs")
