"""Who is in the cluster: its map over time, as the test process decides it and all nodes are told."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from aiscache.devserver.smap import ClusterMap, Node, Placement

if TYPE_CHECKING:
    from aiscache.devserver.member import Member


class Topology:
    """The cluster map and its changes.

    Args:
        members: the targets in order, then the proxy; all are told of each change.
        host: the address at which clients reach them.
        scheme: how clients reach them: "http" or "https".
        uuid: the cluster's id.
    """

    def __init__(self, members: list[Member], *, host: str, scheme: str, uuid: str) -> None:
        self._members = members
        *targets, proxy = [
            Node(member.id, host, member.port, is_proxy=member is members[-1], scheme=scheme) for member in members
        ]
        self.nodes = targets  # all there ever were, in the order of their numbers
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        self._adopt(ClusterMap(uuid, len(members), created, proxy, tuple(targets)))

    def owner(self, uname: str) -> int:
        """The number of the target that owns an object; LookupError where no target is active."""
        node = self._placement.owner(uname)
        if node is None:
            raise LookupError("no active target")
        return self._number(node)

    def join(self, number: int) -> None:
        """Have a target in the map; nothing to do where it is."""
        if self.nodes[number].id not in [node.id for node in self.smap.targets]:
            self._change([*self.smap.targets, self.nodes[number]], rebalance=False)

    def leave(self, number: int, *, rebalance: bool) -> None:
        """Take a target out of the map."""
        gone = self.nodes[number].id
        self._change([node for node in self.smap.targets if node.id != gone], rebalance=rebalance)

    def flag(self, number: int, flags: int, *, rebalance: bool) -> None:
        """Set a target's flags."""
        flagged = msgspec.structs.replace(self.nodes[number], flags=flags)
        nodes = [flagged if node.id == flagged.id else node for node in self.smap.targets]
        self._change(nodes, rebalance=rebalance)

    def _change(self, targets: list[Node], *, rebalance: bool) -> None:
        ordered = tuple(sorted(targets, key=self._number))
        smap = msgspec.structs.replace(self.smap, version=self.smap.version + 1, targets=ordered)
        if rebalance:
            self._rebalance(Placement(smap))
        self._adopt(smap)

    def _adopt(self, smap: ClusterMap) -> None:
        self.smap = smap
        self._placement = Placement(smap)
        told = msgspec.to_builtins(smap)
        for member in self._members:
            member.tell("smap", smap=told)

    def _rebalance(self, placement: Placement) -> None:
        """Copy every object to the target that is about to own it; the old copies stay."""
        for path in self._members[-1].tell("buckets"):
            moves: dict[int, list[Any]] = defaultdict(list)
            for number in range(len(self.nodes)):
                for moved in self._members[number].tell("export", path=path):
                    owner = placement.owner(path + moved[0])
                    if owner is not None and self._number(owner) != number:
                        moves[self._number(owner)].append(moved)
            for number, objects in moves.items():
                self._members[number].tell("import", path=path, objects=objects)

    def _number(self, node: Node) -> int:
        return [known.id for known in self.nodes].index(node.id)
