"""The cluster: its start and end, targets that come and go, tokens, counts, serving a directory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xxhash
from aistore.sdk import Client
from aistore.sdk.errors import AISError, ErrObjNotFound
from wire import ask, follow

from aiscache.devserver import DevCluster, parse_fault, serve

NAMES = [f"f/{i:04d}" for i in range(60)]


@pytest.fixture
def cluster() -> DevCluster:
    """A cluster of its own, to be taken apart."""
    with DevCluster(targets=3) as cluster:
        cluster.put_many("b", {name: name.encode() for name in NAMES})
        yield cluster


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def listed(cluster: DevCluster) -> list[str]:
    return [entry.name for entry in cluster.client().bucket("b").list_all_objects()]


def test_map_has_the_recorded_shape(endpoint: str) -> None:
    smap = json.loads(ask(endpoint, "GET", "/v1/daemon?what=smap").body)
    assert list(smap) == ["pmap", "proxy_si", "tmap", "uuid", "creation_time", "version"]
    target = next(iter(smap["tmap"].values()))
    assert list(target) == [
        "public_net",
        "intra_data_net",
        "intra_control_net",
        "daemon_type",
        "daemon_id",
        "flags",
        "id_digest",
    ]
    assert sorted(target["public_net"]) == ["daemon_port", "direct_url", "node_ip_addr"]
    assert isinstance(smap["version"], str)


def test_sdk_finds_the_cluster_healthy(client: Client) -> None:
    assert client.cluster().is_ready()
    assert client.cluster().get_uuid()


def test_each_cluster_has_an_id_of_its_own() -> None:
    with DevCluster(1) as one, DevCluster(1) as other, DevCluster(1, uuid="given") as given:
        ids = {cluster.client().cluster().get_uuid() for cluster in (one, other, given)}
        assert ids == {one.uuid, other.uuid, "given"}


def test_close_ends_all_processes_and_can_be_repeated() -> None:
    cluster = DevCluster(targets=2)
    pids = cluster.pids
    assert all(map(alive, pids))
    cluster.close()
    assert not any(map(alive, pids))
    cluster.close()
    assert repr(cluster) == "<DevCluster closed, 2 targets>"


HOLDER = """
import os, sys, time
from aiscache.devserver import DevCluster
cluster = DevCluster(targets=2)
if sys.argv[1] == "fork" and os.fork() == 0:
    os.write(1, f"forked {os.getpid()}\\n".encode())
    time.sleep(60)
os.write(1, f"pids {' '.join(map(str, cluster.pids))}\\n".encode())
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_no_process_outlives_a_killed_parent(how: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, how], stdout=subprocess.PIPE, text=True)
    told = dict([holder.stdout.readline().split(maxsplit=1) for _ in range(2 if how == "fork" else 1)])
    pids = [int(pid) for pid in told["pids"].split()]
    fds = [os.pidfd_open(pid) for pid in pids]
    holder.kill()
    holder.wait()
    holder.stdout.close()
    try:
        for fd in fds:
            _wait_readable(fd)
    finally:
        if "forked" in told:
            os.kill(int(told["forked"]), signal.SIGKILL)
        for fd in fds:
            os.close(fd)


def _wait_readable(fd: int) -> None:
    import select

    assert select.select([fd], [], [], 10)[0], "a node is still running"


def test_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            DevCluster(1, port=port)


def test_stopped_target_refuses_and_comes_back_with_its_objects(cluster: DevCluster) -> None:
    victim = next(name for name in NAMES if cluster.owner("b", name) == 1)
    url = cluster.targets[1]
    cluster.stop_target(1)
    with pytest.raises(ConnectionRefusedError):
        ask(url, "GET", f"/v1/objects/b/{victim}")
    answer = ask(cluster.endpoint, "GET", f"/v1/objects/b/{victim}")  # recorded: 231, still sent there
    assert answer.headers["Location"].startswith(url)
    listing = ask(cluster.endpoint, "GET", "/v1/buckets/b", b'{"action": "list", "value": {}}')
    assert listing.status == 400  # recorded: 232
    assert "connection refused" in json.loads(listing.body)["message"]
    cluster.client().bucket("made-meanwhile").create()
    cluster.start_target(1)
    assert cluster.targets[1] == url
    assert follow(cluster.endpoint, "GET", f"/v1/objects/b/{victim}").body == victim.encode()
    assert listed(cluster) == NAMES
    cluster.client().bucket("made-meanwhile").object("x").get_writer().put_content(b"x")


def test_removed_target_leaves_a_short_listing_and_false_404s(cluster: DevCluster) -> None:
    victims = [name for name in NAMES if cluster.owner("b", name) == 2]
    version = cluster.client().cluster().get_info().version
    cluster.remove_target(2)
    assert listed(cluster) == [name for name in NAMES if name not in victims]  # recorded: 234
    with pytest.raises(ErrObjNotFound):
        cluster.client().bucket("b").object(victims[0]).get_reader().read_all()  # recorded: 233
    assert int(cluster.client().cluster().get_info().version) > int(version)
    cluster.start_target(2)
    assert listed(cluster) == NAMES


def test_maintenance_moves_objects_and_leaves_stale_copies(cluster: DevCluster) -> None:
    victim = next(name for name in NAMES if cluster.owner("b", name) == 0)
    old = cluster.targets[0]
    cluster.set_maintenance(0, True)
    smap = cluster.client().cluster().get_info()
    assert [target.flags for target in smap.tmap.values()] == [4, 0, 0]  # recorded: 243
    bucket = cluster.client().bucket("b")
    assert bucket.object(victim).get_reader(direct=True).read_all() == victim.encode()  # recorded: 244
    assert listed(cluster) == NAMES
    bucket.object(victim).get_writer().put_content(b"new")
    assert bucket.object(victim).get_reader().read_all() == b"new"
    assert ask(old, "GET", f"/v1/objects/b/{victim}").body == victim.encode()  # recorded: 252, stale
    cluster.set_maintenance(0, False)
    assert bucket.object(victim).get_reader().read_all() == b"new"
    assert listed(cluster) == NAMES


def test_token_is_wanted_everywhere() -> None:
    with DevCluster(targets=2, token="secret") as cluster:
        bucket = cluster.client().bucket("b").create()
        bucket.object("x").get_writer().put_content(b"x")
        assert bucket.object("x").get_reader().read_all() == b"x"
        assert bucket.object("x").get_reader(direct=True).read_all() == b"x"
        owner = cluster.targets[cluster.owner("b", "x")]
        asked = [(cluster.endpoint, "/v1/daemon?what=smap"), (cluster.endpoint, "/v1/buckets/b")]
        asked += [(cluster.endpoint, "/v1/objects/b/x"), (owner, "/v1/objects/b/x")]
        assert [ask(url, "GET", path).status for url, path in asked] == [401] * 4
        assert [ask(url, "GET", path, Authorization="Bearer no").status for url, path in asked] == [401] * 4
        assert ask(owner, "GET", "/v1/objects/b/x", Authorization="Bearer secret").body == b"x"
        with pytest.raises(AISError):
            Client(cluster.endpoint, token="wrong").bucket("b").list_objects()


def test_counts_of_every_kind(dev_cluster: DevCluster, bucket_name: str) -> None:
    client = dev_cluster.client()
    bucket = client.bucket(bucket_name).create()
    bucket.object("x").get_writer().put_content(b"12345")
    bucket.object("x").get_reader().read_all()
    bucket.object("x").get_reader(direct=True).read_all()
    bucket.object("x").head()
    bucket.list_objects()
    client.batch(["x"], bucket).get()
    bucket.object("x").delete()
    client.cluster().is_ready()
    counted = dev_cluster.requests()
    sent = counted.pop("BYTES")
    assert counted == {
        "GET": 2,
        "HEAD": 1,
        "PUT": 1,
        "DELETE": 1,
        "POST": 0,
        "PATCH": 0,
        "BATCH": 1,
        "LIST": 1,
        "BUCKET": 1,
        "SMAP": 2,
        "OTHER": 1,
        "REDIRECT": 5,
    }
    assert sent > 10


def test_counts_over_http(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.put_many(bucket_name, {"x": b"12345"})
    follow(dev_cluster.endpoint, "GET", f"/v1/objects/{bucket_name}/x")
    told = json.loads(ask(dev_cluster.endpoint, "GET", "/devserver/requests").body)
    assert (told["GET"], told["REDIRECT"], told["BYTES"]) == (1, 1, 5)
    ask(dev_cluster.endpoint, "DELETE", "/devserver/requests")
    assert set(dev_cluster.requests().values()) == {0}


def test_get_that_finds_nothing_counts_once(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.create_bucket(bucket_name)
    dev_cluster.reset_requests()
    assert follow(dev_cluster.endpoint, "GET", f"/v1/objects/{bucket_name}/nosuch").status == 404
    assert follow(dev_cluster.endpoint, "GET", f"/v1/objects/{bucket_name}-not/nosuch").status == 404
    assert dev_cluster.requests()["GET"] == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "a.bin").write_bytes(b"aaaa")
    (tmp_path / "sub dir" / "ключ.bin").write_bytes(bytes(1 << 20))
    return tmp_path


def test_serving_a_directory(folder: Path) -> None:
    with DevCluster(targets=2, serve={"files": folder}) as cluster:
        bucket = cluster.client().bucket("files")
        entries = bucket.list_all_objects(props="name,size,checksum,version")
        assert [(entry.name, entry.size, entry.version) for entry in entries] == [
            ("a.bin", 4, "1"),
            ("sub dir/ключ.bin", 1 << 20, "1"),
        ]
        assert entries[0].checksum == xxhash.xxh64(b"aaaa").hexdigest()
        assert bucket.object("sub dir/ключ.bin").get_reader().read_all() == bytes(1 << 20)
        with pytest.raises(AISError, match="access denied"):
            bucket.object("new").get_writer().put_content(b"x")
        assert sorted(path.name for path in folder.rglob("*.bin")) == ["a.bin", "ключ.bin"]


def test_served_files_that_change_or_go(folder: Path) -> None:
    with DevCluster(targets=1, serve={"files": folder}) as cluster:
        path = "/v1/objects/files/a.bin"
        (folder / "a.bin").write_bytes(b"changed")
        answer = ask(cluster.targets[0], "GET", path)
        assert (answer.body, answer.headers["Ais-Version"]) == (b"changed", "2")
        assert answer.headers["Ais-Checksum-Value"] == xxhash.xxh64(b"changed").hexdigest()
        (folder / "a.bin").unlink()
        assert ask(cluster.targets[0], "GET", path).status == 404


def test_serve_until_told_to_stop(folder: Path) -> None:
    stop = threading.Event()
    ready: list[int] = []

    def look(cluster: DevCluster) -> None:
        ready.append(ask(cluster.targets[0], "GET", f"/v1/objects/{folder.name}/a.bin").status)
        stop.set()

    faults = [parse_fault("*/a.bin,status=418,count=1")]
    serve(folder, on_ready=look, stop=stop, faults=faults)
    assert ready == [418]


SERVER = """
import sys
from aiscache.devserver import serve
serve(sys.argv[1], on_ready=lambda cluster: print(*cluster.pids, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_ctrl_c(folder: Path, how: signal.Signals) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in server.stdout.readline().split()]
    server.send_signal(how)
    assert server.communicate(timeout=20)[0] == "ended\n"
    assert server.returncode == 0
    assert not any(map(alive, pids))


def test_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        serve(tmp_path / "nosuch")


def test_knows_nothing_of_the_rest_of_the_package() -> None:
    code = """
import sys
import aiscache.devserver, aiscache.devserver.node
mine = [name for name in sys.modules if name.startswith("aiscache.") and not name.startswith("aiscache.devserver")]
print(mine, "torch" in sys.modules, "aistore" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "[] False False\n", told.stderr
