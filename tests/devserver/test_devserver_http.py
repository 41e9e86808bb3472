"""HTTP itself: keep-alive, pipelining, back-pressure, bodies in pieces, nonsense."""

from __future__ import annotations

import socket

import pytest
from wire import ask, connect, receive, send

from aiscache.devserver import DevCluster

DATA = bytes(range(256)) * 400  # 100 KiB


@pytest.fixture
def url(dev_cluster: DevCluster, bucket_name: str) -> str:
    """The URL of a target that holds `small`, `large` and `huge`, by way of a bucket with that very name."""
    dev_cluster.create_bucket(bucket_name)
    return dev_cluster.targets[0]


@pytest.fixture
def paths(dev_cluster: DevCluster, bucket_name: str, url: str) -> dict[str, str]:
    """Paths of objects of three sizes, all on the first target."""

    def owned(stem: str) -> str:
        names = (f"{stem}{i}" for i in range(1000))
        return next(name for name in names if dev_cluster.owner(bucket_name, name) == 0)

    sizes = {"small": b"tiny", "large": DATA, "huge": DATA * 80}
    names = {stem: owned(stem) for stem in sizes}
    dev_cluster.put_many(bucket_name, {names[stem]: data for stem, data in sizes.items()})
    return {stem: f"/v1/objects/{bucket_name}/{name}" for stem, name in names.items()}


def test_keep_alive(url: str, paths: dict[str, str]) -> None:
    with connect(url) as sock:
        for _ in range(3):
            for stem, data in (("small", b"tiny"), ("large", DATA), ("huge", DATA * 80)):
                send(sock, "GET", paths[stem])
                assert receive(sock).body == data


def test_pipelined_answers_come_in_order(dev_cluster: DevCluster, url: str, paths: dict[str, str]) -> None:
    dev_cluster.fault("*", "large*", delay_s=0.05)
    stems = ["large", "small", "huge", "small", "large"]
    with connect(url) as sock:
        for stem in stems:
            send(sock, "GET", paths[stem])
        stream = sock.makefile("rb")
        bodies = [_next_body(stream) for _ in stems]
    sizes = {"small": b"tiny", "large": DATA, "huge": DATA * 80}
    assert bodies == [sizes[stem] for stem in stems]


def _next_body(stream: socket.SocketIO) -> bytes:
    assert stream.readline().startswith(b"HTTP/1.1 200")
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name == b"Content-Length" else length
    return stream.read(length)


def test_a_client_that_does_not_read_costs_no_memory(dev_cluster: DevCluster, url: str, paths: dict[str, str]) -> None:
    before = _resident_bytes(dev_cluster.pids[0])
    with connect(url) as sock:
        for _ in range(50):
            send(sock, "GET", paths["huge"])  # 400 MB in all
        assert ask(url, "GET", paths["small"]).body == b"tiny"
        assert _resident_bytes(dev_cluster.pids[0]) - before < 100 << 20


def _resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_client_that_leaves_midway_does_no_harm(url: str, paths: dict[str, str]) -> None:
    for _ in range(5):
        with connect(url) as sock:
            send(sock, "GET", paths["huge"])
            sock.recv(1000)
    assert ask(url, "GET", paths["small"]).body == b"tiny"


def test_request_in_single_bytes(url: str, paths: dict[str, str]) -> None:
    with connect(url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in f"GET {paths['small']}?provider=ais HTTP/1.1\r\nHost: x\r\n\r\n".encode():
            sock.sendall(bytes([byte]))
        assert receive(sock).body == b"tiny"


def test_connection_close_and_http_1_0(url: str, paths: dict[str, str]) -> None:
    answer = ask(url, "GET", paths["small"], Connection="close")
    assert answer.headers["Connection"] == "close"
    with connect(url) as sock:
        sock.sendall(f"GET {paths['small']} HTTP/1.0\r\n\r\n".encode())
        stream = sock.makefile("rb")
        assert stream.read().endswith(b"\r\n\r\ntiny")


def test_nonsense_is_answered_400_and_closed(url: str) -> None:
    with connect(url) as sock:
        sock.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_put_with_expect_is_redirected_before_its_body(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.create_bucket(bucket_name)
    with connect(dev_cluster.endpoint) as sock:  # recorded: 217
        head = f"PUT /v1/objects/{bucket_name}/x HTTP/1.1\r\nHost: x\r\n"
        sock.sendall(f"{head}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())
        answer = receive(sock, "PUT")
    assert (answer.status, answer.headers["Connection"]) == (307, "close")


def test_put_with_expect_is_continued_by_the_target(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.create_bucket(bucket_name)
    path = f"/v1/objects/{bucket_name}/x"
    where = ask(dev_cluster.endpoint, "PUT", path, b"").headers["Location"]
    url, _, query = where.partition("?")
    with connect(url) as sock:
        head = f"PUT {path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"real body")
        assert receive(sock, "PUT").status == 200
    assert ask(url, "GET", path).body == b"real body"


def test_empty_put_to_the_proxy_full_one_to_the_target(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.create_bucket(bucket_name)  # recorded: 216
    path = f"/v1/objects/{bucket_name}/trick"
    where = ask(dev_cluster.endpoint, "PUT", path, b"").headers["Location"]
    target = where[where.index("/v1/") :]
    assert ask(where, "PUT", target, b"real body").status == 200
    assert ask(where, "GET", path).body == b"real body"


def test_large_put_to_the_proxy_closes_the_connection(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.create_bucket(bucket_name)  # recorded: 012
    answer = ask(dev_cluster.endpoint, "PUT", f"/v1/objects/{bucket_name}/x", bytes(1 << 20))
    assert (answer.status, answer.headers["Connection"]) == (307, "close")


def test_idle_connections_can_be_closed(dev_cluster: DevCluster, url: str, paths: dict[str, str]) -> None:
    dev_cluster.fault("*", "large*", delay_s=0.1)
    with connect(url) as idle, connect(url) as busy:
        send(idle, "GET", paths["small"])
        assert receive(idle).body == b"tiny"
        send(busy, "GET", paths["large"])
        while dev_cluster.requests()["GET"] < 2:
            pass  # the request is still on its way
        dev_cluster.close_idle_connections()
        assert idle.recv(1) == b""
        assert receive(busy).body == DATA
    assert ask(url, "GET", paths["small"]).body == b"tiny"
