"""The cluster as a test holds it in its hands."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from aiscache.devserver import buckets, counters, etl
from aiscache.devserver.config import Config
from aiscache.devserver.faults import Fault
from aiscache.devserver.generate import Generated, Spec
from aiscache.devserver.member import Member, Processes
from aiscache.devserver.smap import MAINTENANCE
from aiscache.devserver.tls import Tls
from aiscache.devserver.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aistore.sdk import Client

_BULK = 32 << 20  # bytes of objects sent to a node in one message


class DevCluster:
    """An AIStore look-alike on this machine: one proxy and some targets, each a process with a port of its own.

    It speaks the protocol as recorded from AIStore 5.0. All processes end with this one, however it ends.

    Args:
        targets: how many targets.
        directory: keep bodies that are put in files under this directory (removed at the end) instead of in memory.
        serve: directories to serve read-only, by bucket name. Checksums are computed when first asked for.
        token: if not empty, requests without `Authorization: Bearer <token>` are answered 401.
        delay_s: answer every GET of an object this many seconds later.
        host: the address to listen on.
        port: the proxy's port; any free one by default. Targets always take free ones.
        uuid: the cluster's id; a new one by default.
        tls: if given, all nodes speak TLS; clients need `ca_cert` then (see `Tls`).

    Raises:
        OSError: the port is taken, or a node could not start.
    """

    def __init__(
        self,
        targets: int = 3,
        *,
        directory: str | os.PathLike[str] | None = None,
        serve: Mapping[str, str | os.PathLike[str]] | None = None,
        token: str = "",
        delay_s: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        uuid: str = "",
        tls: Tls | None = None,
    ) -> None:
        if targets < 1:
            raise ValueError(f"targets={targets}: must be at least 1")
        self.token = token
        self.uuid = uuid or secrets.token_urlsafe(8)
        self._host = host
        self._tls = tls
        self._directory = tempfile.mkdtemp(prefix="devserver-", dir=directory) if directory else ""
        self._processes: Processes | None = None
        self._members: list[Member] = []  # the targets in order, then the proxy
        self._closed = False
        self._pid = os.getpid()
        try:
            self._start(targets, port)
            self.set_delay(delay_s)
            for name, served in (serve or {}).items():
                self._serve(name, os.path.abspath(served))
        except BaseException:
            self.close()
            raise

    def _start(self, targets: int, port: int) -> None:
        configs = [self._config(number, 0) for number in range(targets)]
        self._processes = Processes([*configs, self._config(-1, port)])
        self._members = self._processes.members
        for member in self._members:
            member.started()
        scheme = "https" if self._tls else "http"
        self._topology = Topology(self._members, host=_reachable(self._host), scheme=scheme, uuid=self.uuid)

    def _config(self, number: int, port: int) -> Config:
        folder = ""
        if self._directory and number >= 0:
            folder = os.path.join(self._directory, str(number))
            os.mkdir(folder)
        name = "pxAAAAA0" if number < 0 else f"tgBBBBB{number + 1}"
        return Config(name, number, self._host, port, self.token, folder, os.getpid(), self._tls)

    # Its life

    def __enter__(self) -> DevCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all processes. Takes milliseconds; a process that hangs is killed after a few seconds."""
        if self._closed or os.getpid() != self._pid:
            return  # a forked child must not end its parent's cluster
        self._closed = True
        if self._processes is not None:
            self._processes.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.endpoint
        return f"<DevCluster {state}, {len(self._members) - 1} targets>"

    # Where it is

    @property
    def endpoint(self) -> str:
        """The proxy's URL."""
        return self._topology.smap.proxy.url

    @property
    def targets(self) -> list[str]:
        """The URLs of all targets, in order, also of those that are stopped or removed."""
        return [node.url for node in self._topology.nodes]

    @property
    def pids(self) -> list[int]:
        """The process ids of the targets, in order, then the proxy's."""
        return [member.pid for member in self._members]

    def owner(self, bucket: str, name: str) -> int:
        """The number of the target that owns an object, by the present cluster map."""
        return self._topology.owner(buckets.uname(bucket) + name)

    def client(self, **options: Any) -> Client:
        """An official SDK client of this cluster; `options` go to its constructor."""
        from aistore.sdk import Client

        if self.token:
            options.setdefault("token", self.token)
        return Client(self.endpoint, **options)

    # Objects

    def create_bucket(
        self, bucket: str, *, checksum: str = "xxhash2", versioning: bool = True, props: Mapping[str, Any] | None = None
    ) -> None:
        """Make a bucket, unless there is one.

        Args:
            bucket: its name.
            checksum: the type of its objects' checksums.
            versioning: whether its objects have versions.
            props: further properties, nested as AIStore nests them.
        """
        settings = dict(props or {})
        settings["checksum"] = {"type": checksum, **settings.get("checksum", {})}
        settings["versioning"] = {"enabled": versioning, **settings.get("versioning", {})}
        self._make(bucket, settings, read_only=False)

    def put_many(self, bucket: str, objects: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> None:
        """Put objects without a request for each; makes the bucket if need be. Versions grow as with any PUT."""
        self.create_bucket(bucket)
        path = buckets.uname(bucket)
        pending: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
        weight = 0
        for name, data in objects.items() if hasattr(objects, "items") else objects:
            pending[self._topology.owner(path + name)].append((name, data))
            weight += len(data)
            if weight > _BULK:
                self._put(path, pending)
                weight = 0
        self._put(path, pending)

    def _put(self, path: str, pending: dict[int, list[tuple[str, bytes]]]) -> None:
        for number, objects in pending.items():
            self._members[number].tell("put", path=path, objects=objects)
        pending.clear()

    def generate(
        self,
        bucket: str,
        count: int,
        size: int | tuple[int, int] = 1024,
        *,
        seed: int = 0,
        prefix: str = "",
        suffix: str = "",
        digits: int = 8,
    ) -> Generated:
        """Fill a bucket with made-up objects whose bytes cost no memory: a million take a few seconds.

        Args:
            bucket: made if need be.
            count: how many objects.
            size: bytes of each; or the smallest and the largest, spread evenly.
            seed: other seeds, other bytes.
            prefix: begins each name, as in `train/img-`.
            suffix: ends each name, as in `.jpg`.
            digits: width of the number in each name, zero-padded.

        Returns:
            The names, in order, and the bytes behind each.
        """
        smallest, largest = (size, size) if isinstance(size, int) else size
        spec = Spec(count, smallest, largest, seed, prefix, suffix, digits)
        self.create_bucket(bucket)
        self._tell_targets("generate", path=buckets.uname(bucket), spec=msgspec.to_builtins(spec))
        return Generated(spec)

    def _serve(self, bucket: str, directory: str) -> None:
        if not os.path.isdir(directory):
            raise NotADirectoryError(directory)
        self._make(bucket, {}, read_only=True)
        self._tell_targets("serve", path=buckets.uname(bucket), directory=directory)

    def _make(self, bucket: str, settings: dict[str, Any], *, read_only: bool) -> None:
        path = buckets.uname(bucket)
        props = self._members[-1].tell("new_bucket", path=path, settings=settings)
        self._tell_targets("bucket", path=path, props=props, read_only=read_only)

    def add_etl(self, name: str, kind: str) -> None:
        """Offer the transform `kind` ("echo", "upper", "reverse", "double") to GETs with `etl_name=<name>`."""
        if kind not in etl.KINDS:
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(etl.KINDS)}")
        self._tell_targets("etl", name=name, kind=kind)

    # Counts

    def requests(self) -> dict[str, int]:
        """Clients' requests by kind since the last reset (see `counters.py`), and bytes of bodies sent."""
        total = counters.zero()
        for member in self._members:
            counters.add(total, member.tell("counts"))
        return total

    def reset_requests(self) -> None:
        """Count from zero."""
        for member in self._members:
            member.tell("reset")

    # What goes wrong

    def fault(self, bucket: str = "*", name: str = "*", **fields: Any) -> None:
        """Let requests go wrong from now on, as `faults.Fault` says: `fault("b", "img*", status=503, count=2)`."""
        try:
            fault = Fault(bucket=bucket, name=name, **fields)
        except TypeError as error:
            raise ValueError(f"{error}; fields are {', '.join(Fault.__struct_fields__)}") from None
        self.add_fault(fault)

    def add_fault(self, fault: Fault) -> None:
        """Like `fault`, for a fault at hand (`parse_fault`)."""
        tokens: tuple[int, ...] = ()
        if fault.count is not None:
            tokens = (os.eventfd(fault.count, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC),)
        try:
            for member in self._members:
                member.tell("fault", tokens, fault=msgspec.to_builtins(fault))
        finally:
            for descriptor in tokens:
                os.close(descriptor)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        for member in self._members:
            member.tell("clear_faults")

    def set_delay(self, delay_s: float) -> None:
        """Answer every GET of an object this many seconds later; others are served meanwhile."""
        for member in self._members:
            member.tell("delay", delay_s=delay_s)

    def stop_target(self, number: int) -> None:
        """The target is gone: its port refuses connections, yet it stays in the cluster map and keeps its objects."""
        self._members[number].tell("stop")

    def start_target(self, number: int) -> None:
        """A stopped or removed target is back, on the same port, with the objects it had."""
        known = self._members[-1].tell("buckets")
        self._members[number].tell("keep_buckets", paths=list(known))
        for path, props in known.items():
            self._members[number].tell("bucket", path=path, props=props)
        self._members[number].tell("start")
        self._topology.join(number)

    def remove_target(self, number: int, *, rebalance: bool = False) -> None:
        """Take the target out of the cluster map. Its objects are missing, silently, unless they are moved first."""
        self._topology.leave(number, rebalance=rebalance)

    def set_maintenance(self, number: int, on: bool, *, rebalance: bool = True) -> None:
        """Put the target in maintenance, or back into service.

        It stays in the map, flagged, and owns nothing. With `rebalance` its objects are copied to their new owners
        first, as AIStore does; the target keeps its copies and serves them to whoever asks it directly, stale ones too.
        """
        self._topology.flag(number, MAINTENANCE if on else 0, rebalance=rebalance)

    def close_idle_connections(self) -> None:
        """Close clients' idle connections on all nodes, as a server does after some time (AIStore: 30 s)."""
        for member in self._members:
            member.tell("close_idle")

    def _tell_targets(self, op: str, **arguments: Any) -> None:
        """Tell all targets at once, and wait for all."""
        with contextlib.ExitStack() as stack:
            for member in self._members[:-1]:
                member.begin(op, **arguments)
                stack.callback(member.finish)


def _reachable(host: str) -> str:
    """The address to tell clients, where a node listens on all of them."""
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 -- compared, not bound
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing: the kernel only picks the address it would send from
        return str(probe.getsockname()[0])
    return "127.0.0.1"
