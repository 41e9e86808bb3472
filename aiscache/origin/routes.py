"""Whom to ask for an object: `Routes`, the cluster map together with what is known against it.

The map comes late, gets old when targets come and go, and names targets that do not answer. Then the proxy is asked,
which is always right, and a new map is fetched on the side.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic

from aiscache.origin.clustermap import ClusterMap
from aiscache.origin.names import uname
from aiscache.origin.task import MAP, Task

_REFRESH_S = 2.0  # a cluster map is not asked for more often
_DISTRUST_S = 10.0  # a node that did not answer is asked through the proxy for so long


class Routes:
    """The routes to one cluster's objects, shared by the threads of a process."""

    def __init__(self) -> None:
        self.map: ClusterMap | None = None
        self._lock = threading.Lock()
        self._refreshing = False
        self._refreshed_at = -_REFRESH_S
        self._distrusted: dict[str, float] = {}

    def owner(self, task: Task) -> str | None:
        """Return the target to ask straight; None for the proxy: for an ETL, for the map, and around a silent node."""
        if self.map is None or task.verb == MAP or task.ref.etl:
            return None
        if task.owner is not None and task.owner[0] is self.map:
            owner = task.owner[1]
        else:
            owner = self.map.owner(uname(task.ref))
        if owner is not None and self._distrusted and self._distrusted.get(owner, 0.0) > monotonic():
            return None
        return owner

    def place(self, tasks: Sequence[Task]) -> None:
        """Look up the owners of many objects at once; `owner` uses them while the map stays the same."""
        routes = self.map
        if routes is not None:
            for task, owner in zip(tasks, routes.owners([uname(task.ref) for task in tasks]), strict=True):
                task.owner = (routes, owner)

    def distrust(self, node: str) -> None:
        """Ask the proxy instead of this node for a while: it did not answer."""
        self._distrusted[node] = monotonic() + _DISTRUST_S

    def wants_map(self) -> bool:
        """Whether the caller is to refresh the cluster map: one caller at a time, every two seconds at most."""
        with self._lock:
            if self._refreshing or monotonic() - self._refreshed_at < _REFRESH_S:
                return False
            self._refreshing = True
            return True

    def adopt(self, body: bytes | None) -> None:
        """Take a cluster map as it was received; None: it could not be had, the old one stays.

        OriginError if the body is something else.
        """
        with self._lock:
            if self._refreshing:
                self._refreshing, self._refreshed_at = False, monotonic()
        if body is None:
            return
        fresh = ClusterMap.decode(body)
        if self.map is None or fresh.targets != self.map.targets:
            self._distrusted.clear()
        self.map = fresh

    def after_fork(self) -> None:
        """In a child: forget what threads of the parent were about."""
        self._lock = threading.Lock()
        self._refreshing = False
