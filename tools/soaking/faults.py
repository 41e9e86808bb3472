"""What goes wrong at the origin: kinds of trouble, each for a while."""

from __future__ import annotations

import random
from collections.abc import Callable

from aiscache.devserver import DevCluster
from tools.soaking.job import SLOWEST_BYTES_PER_S
from tools.soaking.objects import BUCKET


class Trouble:
    """One kind of trouble: `begin` makes it; it ends with the cluster's faults, and what `begin` returns is done."""

    def __init__(self, name: str, begin: Callable[[DevCluster, random.Random], Callable[[], None] | None]) -> None:
        self.name = name
        self.begin = begin


def _fault(name: str, **fields: object) -> Trouble:
    """A fault that strikes a third of the objects, or, without `GET`, what `fields` say."""

    def begin(cluster: DevCluster, chance: random.Random) -> None:
        some = f"*[{''.join(chance.sample('0123456789', 3))}]"
        cluster.fault(BUCKET, some, **{"method": "GET", **fields})

    return Trouble(name, begin)


def _target_down(cluster: DevCluster, chance: random.Random) -> Callable[[], None]:
    target = chance.randrange(len(cluster.targets))
    cluster.stop_target(target)
    return lambda: cluster.start_target(target)


def _target_leaves(cluster: DevCluster, chance: random.Random) -> Callable[[], None]:
    target = chance.randrange(len(cluster.targets))
    cluster.remove_target(target)
    return lambda: cluster.start_target(target)


def _listing_short(cluster: DevCluster, chance: random.Random) -> None:
    cluster.fault(BUCKET, list_drop=chance.choice([0.1, 0.5]))


def _connections_closed(cluster: DevCluster, chance: random.Random) -> None:
    cluster.close_idle_connections()


LEAVES = "a target leaves the cluster map"
"""Objects are missing then; if one were overwritten, its version of before would come back with the target."""

TROUBLES = [
    _fault("status 503", status=503),
    _fault("status 429, three times", status=429, count=3),
    _fault("status 500 for listings", method="LIST", status=500),
    _fault("reset at the first byte", reset_at=0),
    _fault("reset in the middle", reset_at=3_000),
    _fault("truncated", truncate_at=600),
    _fault("a byte flipped", flip_byte_at=500),
    _fault("a byte flipped, once", flip_byte_at=-1, count=1),
    _fault("stalled", stall_at=2_000, count=6),
    _fault("late", delay_s=0.4),
    _fault("slow", bytes_per_s=SLOWEST_BYTES_PER_S),
    Trouble("a target refuses connections", _target_down),
    Trouble(LEAVES, _target_leaves),
    Trouble("a listing comes short", _listing_short),
    Trouble("idle connections are closed", _connections_closed),
]
