"""What a node is told when it starts."""

from __future__ import annotations

import msgspec

from aiscache.devserver.tls import Tls


class Config(msgspec.Struct, frozen=True):
    """What a node is told when it starts.

    Attributes:
        id: the node's id in the cluster map.
        number: the target's number; -1 for the proxy.
        host: the address to listen on.
        port: the port to listen on; 0 for any free one.
        token: if not empty, requests without it are refused.
        directory: where a target keeps bodies; in memory without it.
        parent: the process that the node must not outlive.
        tls: if given, the node speaks TLS.
    """

    id: str
    number: int
    host: str
    port: int
    token: str
    directory: str
    parent: int
    tls: Tls | None = None
