"""Fork, spawn, many descriptors, TLS: an origin where users put it. Promise 3: never stuck."""

from __future__ import annotations

import multiprocessing
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from aistore.sdk import Client
from rawserver import RawServer, Request, object_response, smap

from aiscache.devserver import DevCluster
from aiscache.errors import OriginError
from aiscache.keys import ObjectRef
from aiscache.origin import BucketName, HeapSink, Origin, OriginSettings
from tests.certificates import Certificates


@pytest.fixture
def refs(dev_cluster: DevCluster, bucket_name: str) -> list[ObjectRef]:
    dev_cluster.generate(bucket_name, 40, 30_000)
    origin = Origin.from_client(Client(dev_cluster.endpoint))
    return [
        ObjectRef(
            cluster=origin.uuid, provider="ais", bucket=bucket_name, name=entry.n, size=entry.s, checksum=entry.cs,
            version=entry.v,
        )
        for page in origin.list_pages(BucketName(name=bucket_name))
        for entry in page
    ]  # fmt: skip


def verified(origin: Origin, refs: list[ObjectRef]) -> int:
    return sum(fetched.verified for fetched in origin.fetch(refs, HeapSink()))


def in_child(work: Callable[[], bool]) -> int:
    """Run in a forked child that ends like an ordinary program, cleaning up on the way; return its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = 0 if work() else 1
        finally:
            Origin.close_all()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_parent_and_children_go_on_after_fork(dev_cluster: DevCluster, refs: list[ObjectRef]) -> None:
    origin = Origin.from_client(Client(dev_cluster.endpoint))
    assert verified(origin, refs) == 40
    for _ in range(3):
        assert in_child(lambda: verified(origin, refs) == 40) == 0
        assert verified(origin, refs) == 40


def test_a_child_sends_nothing_on_the_parents_connections(refs: list[ObjectRef]) -> None:
    def answer(request: Request) -> bytes:
        return smap(server.url) if "what=smap" in request.path else object_response(b"x" * 1000)

    with RawServer(answer) as server:
        origin = Origin.of(OriginSettings(endpoint=server.url))
        assert verified(origin, refs[:0]) == 0
        bare = [ObjectRef(cluster="", provider="ais", bucket="b", name=f"o{n}") for n in range(8)]
        assert verified(origin, bare) == 8
        before = server.connections
        assert in_child(lambda: verified(origin, bare) == 8) == 0
        between = server.connections
        assert between > before
        assert verified(origin, bare) == 8
        assert server.connections == between  # the parent's own connections still serve


def test_a_fetch_does_not_go_on_in_a_child(dev_cluster: DevCluster, refs: list[ObjectRef]) -> None:
    origin = Origin.from_client(Client(dev_cluster.endpoint))
    iterator = origin.fetch(refs, HeapSink(), in_flight=4)
    count = int(next(iterator).verified)

    def resume() -> bool:
        with pytest.raises(OriginError, match="fork"):
            list(iterator)
        return verified(origin, refs) == 40

    assert in_child(resume) == 0
    assert count + sum(fetched.verified for fetched in iterator) == 40


def _spawned(origin: Origin, refs: list[ObjectRef], pipe: object) -> None:
    pipe.send((verified(origin, refs), origin.settings))  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_an_origin_crosses_to_other_processes(dev_cluster: DevCluster, refs: list[ObjectRef], method: str) -> None:
    context = multiprocessing.get_context(method)
    origin = Origin.from_client(Client(dev_cluster.endpoint, timeout=(2, 11)))
    ours, theirs = context.Pipe()
    process = context.Process(target=_spawned, args=(origin, refs, theirs))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == (40, origin.settings)
    process.join(30)
    ours.close()
    theirs.close()
    process.close()


def test_more_descriptors_than_select_can_see(dev_cluster: DevCluster, refs: list[ObjectRef]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1500:
        pytest.skip("too few descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    filler = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        origin = Origin(OriginSettings(endpoint=dev_cluster.endpoint))
        assert verified(origin, refs) == 40
        origin.close()
    finally:
        for descriptor in filler:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fetching_imports_neither_torch_nor_the_sdk() -> None:
    program = "import sys, aiscache.origin; print([m for m in ('torch', 'aistore', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[RawServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    def answer(request: Request) -> bytes:
        return smap(server.url) if "what=smap" in request.path else object_response(b"secret" * 1000)

    server = RawServer(answer, tls=context)
    with server:
        yield server


def test_a_child_sends_nothing_on_the_parents_tls_connections(
    tls_server: RawServer, certificates: Certificates
) -> None:
    origin = Origin.from_client(Client(tls_server.url, ca_cert=certificates.ca))
    bare = [ObjectRef(cluster="", provider="ais", bucket="b", name=f"o{n}") for n in range(5)]
    assert verified(origin, bare) == 5
    # A goodbye that a child wrote into the parent's TLS session would break it.
    before = tls_server.connections
    assert in_child(lambda: verified(origin, bare) == 5) == 0
    between = tls_server.connections
    assert between > before
    assert verified(origin, bare) == 5
    assert tls_server.connections == between
