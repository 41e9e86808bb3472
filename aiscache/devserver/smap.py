"""The cluster map: every node, its address and state, as `GET /v1/daemon?what=smap` tells it (recorded: 002, 243)."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from aiscache.devserver import hrw

MAINTENANCE = 4  # flag of a node in maintenance (recorded: 243); rendezvous hashing skips it
_PRIMARY = 2  # flag of the primary proxy (recorded: 002)


class Node(msgspec.Struct, frozen=True):
    """One node of the cluster: its id, where clients reach it and how, and its state flags."""

    id: str
    host: str
    port: int
    is_proxy: bool = False
    flags: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        """The node's base URL."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def label(self) -> str:
        """How AIStore names the node in messages: `p[id]` or `t[id]`."""
        return f"{'p' if self.is_proxy else 't'}[{self.id}]"

    def as_json(self) -> dict[str, Any]:
        """The node as the cluster map tells it. One network plays all three roles here."""
        net = {"node_ip_addr": self.host, "daemon_port": str(self.port), "direct_url": self.url}
        told: dict[str, Any] = {"public_net": net, "intra_data_net": net, "intra_control_net": net}
        told["daemon_type"] = "proxy" if self.is_proxy else "target"
        told |= {"daemon_id": self.id, "flags": self.flags | (_PRIMARY if self.is_proxy else 0)}
        told["id_digest"] = hrw.digest(self.id)
        return told


class ClusterMap(msgspec.Struct, frozen=True):
    """All nodes at one version. Immutable: a change makes a new map with a higher version."""

    uuid: str
    version: int
    created: str
    proxy: Node
    targets: tuple[Node, ...]

    def as_json(self) -> bytes:
        """The body of `GET /v1/daemon?what=smap`; like AIStore's it ends in a newline."""
        proxy = self.proxy.as_json()
        told = {
            "pmap": {self.proxy.id: proxy},
            "proxy_si": proxy,
            "tmap": {target.id: target.as_json() for target in self.targets},
            "uuid": self.uuid,
            "creation_time": self.created,
            "version": str(self.version),
        }
        return json.dumps(told, separators=(",", ":")).encode() + b"\n"

    def active(self) -> list[Node]:
        """The targets that own objects: those not in maintenance."""
        return [target for target in self.targets if not target.flags & MAINTENANCE]


class Placement:
    """A cluster map with the digests at hand: answers who owns an object."""

    def __init__(self, smap: ClusterMap) -> None:
        self.smap = smap
        self.targets = smap.active()
        self._digests = [hrw.digest(target.id) for target in self.targets]

    def owner(self, uname: str) -> Node | None:
        """The target that owns `uname`, or None where no target is active."""
        index = hrw.owner(uname, self._digests)
        return self.targets[index] if index >= 0 else None

    def owned_by(self, node_id: str, unames: list[str]) -> list[bool]:
        """For each name, whether the node `node_id` owns it."""
        if not self.targets or not unames:
            return [False] * len(unames)
        ids = [target.id for target in self.targets]
        mine = ids.index(node_id) if node_id in ids else -1
        owned: list[bool] = (hrw.owners(unames, self._digests) == mine).tolist()
        return owned
