"""One object on its way from the cluster: where it is asked for next, and what has gone wrong so far."""

from __future__ import annotations

from aiscache.errors import OriginError
from aiscache.keys import ObjectRef
from aiscache.origin.clustermap import ClusterMap
from aiscache.origin.fetched import Body
from aiscache.origin.head import Head

GET, HEAD, MAP = "GET", "HEAD", "MAP"


class Task:
    """The state of one request. `path` is relative to the node; `url` is set while a redirect is followed."""

    __slots__ = (
        "attempts", "began", "body", "deadline", "denials", "direct", "doubts", "error", "head", "hops", "index",
        "network_failures", "node", "owner", "path", "ready", "ref", "refusals", "size", "took_s", "url", "verb",
        "verified", "xxh64",
    )  # fmt: skip

    def __init__(self, verb: str, path: str, *, index: int, ref: ObjectRef, deadline: float) -> None:
        self.verb = verb
        self.path = path
        self.index = index
        self.ref = ref
        self.deadline = deadline
        self.began = 0.0  # when it was asked for first, by the run's clock
        self.took_s = 0.0  # from then until it had ended
        self.node = ""  # the server asked last
        self.url = ""  # where the proxy sent us, else node + path
        self.owner: tuple[ClusterMap, str | None] | None = None  # who has it, by which cluster map
        self.direct = False  # asked the owner without asking the proxy
        self.attempts = 0
        self.hops = 0
        self.network_failures = 0
        self.refusals = 0
        self.doubts = 0  # how often the bytes were not what their checksum is of
        self.denials = 0  # how often it was said to be missing, or another version
        self.body: Body | None = None
        self.size = 0
        self.ready = 0  # how many others had ended too when this one was handed out
        self.xxh64 = 0
        self.head: Head | None = None
        self.error: OriginError | None = None
        self.verified = False

    @property
    def label(self) -> str:
        """What is asked for, for messages."""
        return "the cluster map" if self.verb == MAP else self.ref.url
