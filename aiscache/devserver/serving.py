"""`aiscache serve`: a cluster that serves one directory until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

from aiscache.devserver.cluster import DevCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aiscache.devserver.faults import Fault
    from aiscache.devserver.tls import Tls


def serve(
    directory: str | os.PathLike[str],
    *,
    bucket: str = "",
    host: str = "127.0.0.1",
    port: int = 0,
    targets: int = 1,
    token: str = "",
    delay_s: float = 0.0,
    faults: Iterable[Fault] = (),
    tls: Tls | None = None,
    on_ready: Callable[[DevCluster], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the files under `directory` as objects, read-only, until Ctrl-C, SIGTERM or `stop`.

    Args:
        directory: what to serve.
        bucket: the bucket's name; the directory's own by default.
        host: the address to listen on.
        port: the proxy's port; any free one by default.
        targets: how many targets to run.
        token: if not empty, requests without it are refused.
        delay_s: answer every GET this many seconds later.
        faults: what goes wrong (`parse_fault`).
        tls: if given, the cluster speaks TLS.
        on_ready: told the running cluster once it serves; the place to print its endpoint.
        stop: ends the serving from another thread.

    Raises:
        NotADirectoryError: there is no such directory.
        OSError: the port is taken.
    """
    path = os.path.abspath(directory)
    name = bucket or os.path.basename(path) or "root"
    stop = stop or threading.Event()
    with (
        contextlib.suppress(KeyboardInterrupt),
        _terminable(),
        DevCluster(targets, serve={name: path}, token=token, delay_s=delay_s, host=host, port=port, tls=tls) as cluster,
    ):
        for fault in faults:
            cluster.add_fault(fault)
        if on_ready is not None:
            on_ready(cluster)
        stop.wait()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, where this is the main thread.

    An exception, not `stop.set()`: the handler may run while this very thread is inside `stop.wait()`, holding the lock
    that `set()` takes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
