"""Nobody else reads the cache or plants one, names stay names, and tokens stay where the user put them."""

from __future__ import annotations

import ast
import http.client
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

import aiscache
from aiscache.devserver import DevCluster
from aiscache.errors import CacheDirectoryError, ObjectNotFoundError
from aiscache.keys import ObjectRef
from aiscache.origin import Origin, OriginSettings
from aiscache.store import Directory
from tests.actor import RIGHT, Actor, Elsewhere, Version
from tests.forks import ForkServer
from tests.prefetch.processes import descendants_of, pool_processes, wait_until

PACKAGE = Path(aiscache.__file__).parent


def versions(cluster: DevCluster, bucket: str, objects: dict[str, bytes]) -> list[tuple[Version, bytes]]:
    """Put objects on the cluster; return them as it has them."""
    cluster.put_many(bucket, objects)
    origin = Origin.of(OriginSettings(endpoint=cluster.endpoint))
    refs = [ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket, name=name) for name in objects]
    return [(Version(ref, xxhash.xxh3_64_intdigest(objects[ref.name])), objects[ref.name]) for ref in origin.head(refs)]


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    yield
    Origin.close_all()


# ---- who can read it


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
@pytest.mark.parametrize("place", ["disk", "unnamed"])
def test_directories_are_0700_and_files_0600_whatever_the_umask(
    dev_cluster: DevCluster,
    bucket_name: str,
    tmp_path: Path,
    fork_server: ForkServer,
    private_shared_memory: Path,
    place: str,
    mask: int,
) -> None:
    objects = versions(dev_cluster, bucket_name, {f"o{number}": os.urandom(300_000) for number in range(5)})
    path = tmp_path / "above" / "cache" if place == "disk" else None
    options = {"capacity": "10MB", "memory": "1MB"}
    with Elsewhere(str(private_shared_memory), dev_cluster.endpoint, path and str(path), options) as actor:
        actor.ask("umask", mask)
        assert actor.ask("read", [version for version, _ in objects[:4]]) == [RIGHT] * 4
        actor.ask("list", bucket_name, [version for version, _ in objects])
        actor.ask("stage", *objects[4])
        made = [found for top in (private_shared_memory, tmp_path) for found in top.rglob("*")]
        modes = {found: stat.S_IMODE(found.lstat().st_mode) for found in made}
        if path is not None:
            assert not modes.pop(path.parent) & 0o022
        assert [found for found, mode in modes.items() if mode != (0o700 if found.is_dir() else 0o600)] == []
    assert {found.name for found in made} >= {"data.mdb", "boot", "CACHEDIR.TAG", "stats", "staging", "listings"}


# ---- who made it


@pytest.mark.parametrize("part", ["index", "segments", "manifests"])
def test_a_part_that_is_a_link_is_refused(tmp_path: Path, part: str) -> None:
    Directory(tmp_path / "cache")
    (tmp_path / "cache" / part).rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache" / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheDirectoryError, match=f"{part} is not a directory that only this user can write"):
        Directory(tmp_path / "cache")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_another_user_puts_into_an_open_directory_as_it_is_taken_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache"
    path.mkdir()
    path.chmod(0o777)
    close = Path.chmod

    def too_late(self: Path, mode: int) -> None:
        (path / "format").write_text("aiscache 2\n")
        close(self, mode)

    monkeypatch.setattr(Path, "chmod", too_late)
    with pytest.raises(CacheDirectoryError, match="can be written by others"):
        Directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("planted", ["directory", "link", "open directory"])
def test_a_memory_tier_that_another_user_planted_is_refused(
    tmp_path: Path, private_shared_memory: Path, planted: str
) -> None:
    place = private_shared_memory / f"aiscache-{os.geteuid()}"
    if planted == "link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
        place.chmod(0o777 if planted == "open directory" else 0o700)
        if planted == "directory":
            os.chown(place, 65534, 65534)
    with pytest.raises(CacheDirectoryError, match="is not a directory that only this user can write"):
        aiscache.Cache(tmp_path / "cache", memory="1MB")
    assert [found.name for found in place.iterdir()] == (["cache"] if planted == "link" else [])


# ---- what is in it

RUNS_CODE = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "code", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__", "literal_eval"}
MAY_PICKLE = {
    "prefetch/pool.py": "the job, from the trainer that started the pool, over a socket that only these two have",
    "prefetch/process.py": "the other end of it",
    "datasets/reader.py": "a dataset that a process of the same program sent through a pipe",
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_is_read_is_run(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    keywords = {keyword.arg for node in calls for keyword in node.keywords}
    assert called & CALLS == set()
    assert "allow_pickle" not in keywords
    allowed = {"pickle"} if str(path.relative_to(PACKAGE)) in MAY_PICKLE else set()
    assert imported & RUNS_CODE == allowed


def test_those_who_may_pickle_open_no_file_of_a_cache() -> None:
    for name in MAY_PICKLE:
        text = (PACKAGE / name).read_text()
        assert not re.search(r"(?<![.\w])open\(|read_bytes|read_text|os\.pread|mmap", text), name


# ---- names

NAMES = [
    "../../x",
    "/etc/passwd",
    "//x",
    "a/../../../b",
    "..",
    ".",
    "a\0b",
    "%2e%2e%2f",
    "x" * 1024,
    "ü/\u202e",
    "a\nb",
    "~",
]


def test_names_from_the_cluster_never_become_paths(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, private_shared_memory: Path
) -> None:
    home = tmp_path / "a" / "b" / "c"
    actor = Actor(str(private_shared_memory), dev_cluster.endpoint, str(home), {"capacity": "10MB"})
    cluster = Origin.of(OriginSettings(endpoint=dev_cluster.endpoint)).uuid
    for bucket in [bucket_name, "../../evil", "/evil"]:
        for name in NAMES:
            data = name.encode() * 3
            ref = ObjectRef(cluster=cluster, provider="ais", bucket=bucket, name=name, size=len(data), etl="../etl")
            version = Version(ref, xxhash.xxh3_64_intdigest(data))
            assert actor.put(version, data)
            actor.stage(version, data)
            assert actor.read([version]) == [RIGHT]
    dev_cluster.put_many(bucket_name, dict.fromkeys(NAMES, b"x"))
    store = actor.cache.store()
    assert store is not None
    assert {record.ref.name for _, record in store.upkeep.records()} == set(NAMES)
    made = {str(found.relative_to(home)) for found in home.rglob("*")}
    pattern = r"(segments|staging)/[0-9a-f]{16}\.seg|index/(data|lock)\.mdb|[a-z]+|CACHEDIR\.TAG"
    assert [name for name in made if not re.fullmatch(pattern, name)] == []
    actor.end()
    assert sorted(tmp_path.rglob("*"))[:3] == [tmp_path / "a", tmp_path / "a" / "b", home]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_name_that_leads_out_of_its_bucket_is_never_asked_for(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.put_many("secrets", {"key": b"secret"})
    dev_cluster.put_many(bucket_name, {"a": b"a"})
    origin = Origin.of(OriginSettings(endpoint=dev_cluster.endpoint))
    ref = ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name="../secrets/key")
    dev_cluster.reset_requests()
    with pytest.raises(ObjectNotFoundError, match=r"\.\."):
        origin.head([ref])
    assert dev_cluster.requests()["HEAD"] == 0


def test_the_dev_server_serves_no_file_outside_of_its_directory(tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "a").write_text("a")
    (tmp_path / "key").write_text("secret")
    outside = ["../key", "%2e%2e/key", "..%2fkey", "a/../../key", f"/{tmp_path}/key", f"{tmp_path}/key"]
    with DevCluster(targets=1, serve={"shown": tmp_path / "shown"}) as cluster:
        host, _, port = cluster.targets[0].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        for name in ("a", *outside):
            connection.request("GET", f"/v1/objects/shown/{name}?provider=ais")
            answer = connection.getresponse()
            assert answer.status == (200 if name == "a" else 404), name
            assert b"secret" not in answer.read()
        connection.close()


# ---- tokens

TOKEN, WRONG = "marker-of-a-good-token", "marker-of-a-wrong-token"

USER = """
import logging, os, sys, traceback, warnings
logging.basicConfig(level=logging.DEBUG)
from aistore.sdk import Client
from aiscache import AISMapDataset, AISShardReader, Cache, DataLoader
from aiscache.errors import AiscacheError
from aiscache.origin import Origin, OriginSettings, RetryPolicy
endpoint, bucket, path, token, wrong = (sys.argv[1:4] + sys.stdin.readline().split())
given = {} if os.environ.get("AIS_AUTHN_TOKEN") else {"token": token}
client = Client(endpoint, **given)
cache = Cache(path, capacity="500kB")
dataset = AISMapDataset(client.bucket(bucket), cache=cache)
loader = DataLoader(dataset, batch_size=4, num_workers=2, prefetch_processes=2, lookahead="1MB", collate_fn=list)
batches = iter(loader)
next(batches)
print("running", flush=True)
sys.stdin.readline()
for _ in batches: pass
origin = Origin.from_client(client)
for thing in (client, cache, dataset, dataset.manifest, loader, loader.prefetcher, cache.stats(), cache.store(),
              dataset._reader, dataset._reader.origins, dataset.get_obj_list()[0], origin, origin.settings,
              vars(dataset), vars(loader), vars(loader.prefetcher), vars(origin), cache.__getstate__()):
    print(repr(thing), str(thing))
nobody = Origin(OriginSettings(endpoint="http://127.0.0.1:9", token=wrong, retry=RetryPolicy(network_attempts=1)))
for fail in (
    lambda: AISMapDataset(Client(endpoint, token=wrong).bucket(bucket), cache=cache),
    lambda: Origin.from_client(Client(endpoint, token=wrong)).uuid,
    lambda: AISMapDataset(client.bucket("no-such-bucket"), cache=cache),
    lambda: nobody.uuid,
):
    try:
        print("no error", fail())
    except AiscacheError as error:
        traceback.print_exc()
        print(type(error).__name__, repr(error), vars(error))
cache.evict("none")
cache.verify()
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_token_is_in_no_log_file_error_repr_or_process(tmp_path: Path, how: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIS")}
    if how == "environment":
        environment["AIS_AUTHN_TOKEN"] = TOKEN
    with DevCluster(targets=2, token=TOKEN) as cluster, (tmp_path / "log").open("wb") as log:
        cluster.put_many("b", {f"o{number:02}": os.urandom(30_000) for number in range(40)})
        user = subprocess.Popen(
            [sys.executable, "-c", USER, cluster.endpoint, "b", str(tmp_path / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd=PACKAGE.parent,
        )
        assert user.stdin is not None
        assert user.stdout is not None
        with user:
            user.stdin.write(f"{TOKEN} {WRONG}\n")
            user.stdin.flush()
            assert user.stdout.readline() == "running\n", (tmp_path / "log").read_text()
            wait_until(lambda: len(pool_processes(user.pid)) >= 3)
            processes = descendants_of(user.pid)
            assert not [pid for pid in processes if TOKEN in told(pid, "cmdline")]
            with_token = [pid for pid in processes if TOKEN in told(pid, "environ")]
            assert with_token == (processes if how == "environment" else [])
            user.stdin.write("go on\n")
            user.stdin.flush()
            lines = []
            while not lines or lines[-1] not in ("done\n", ""):
                lines.append(user.stdout.readline())
            printed = "".join(lines)
            assert lines[-1] == "done\n", (tmp_path / "log").read_text()
            files = [found for found in tmp_path.rglob("*") if found.is_file()]
            assert len(files) > 8
            for found in files:
                data = found.read_bytes()
                assert TOKEN.encode() not in data, found
                assert WRONG.encode() not in data, found
            user.stdin.write("end\n")
        assert TOKEN not in printed
        assert WRONG not in printed
        assert "no error" not in printed
        assert all(name in printed for name in ("AuthenticationError", "BucketNotFoundError", "UnreachableError"))
        assert "DEBUG" in (tmp_path / "log").read_text()


def told(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
    except OSError:
        return ""
