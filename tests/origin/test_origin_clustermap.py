"""Owners of objects, against the SDK's own answers."""

from __future__ import annotations

import json

import pytest
from aistore.sdk import Client
from aistore.sdk.types import Smap
from hypothesis import given, settings
from hypothesis import strategies as st

from aiscache.devserver import DevCluster
from aiscache.errors import OriginError
from aiscache.keys import ObjectRef
from aiscache.origin import ClusterMap
from aiscache.origin.names import is_cleaned, object_path, requoted, uname


def smap(digests: list[int], flags: list[int]) -> bytes:
    def node(number: int) -> dict[str, object]:
        url = f"http://10.0.0.{number}:80"
        return {
            "daemon_id": f"t{number}", "daemon_type": "target", "flags": flags[number], "id_digest": digests[number],
            "public_net": {"node_hostname": "h", "daemon_port": "80", "direct_url": url},
        }  # fmt: skip

    nodes = {f"t{number}": node(number) for number in range(len(digests))}
    proxy = {"daemon_id": "p", "daemon_type": "proxy"}
    return json.dumps({"tmap": nodes, "pmap": {}, "proxy_si": proxy, "uuid": "u", "version": "3"}).encode()


@settings(deadline=None)
@given(
    nodes=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from([0, 0, 0, 2, 4, 8])), min_size=1, max_size=30),
    names=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=5),
)
def test_owners_are_those_of_the_sdk(nodes: list[tuple[int, int]], names: list[str]) -> None:
    body = smap([digest for digest, _ in nodes], [flags for _, flags in nodes])
    ours, theirs = ClusterMap.decode(body), Smap.model_validate_json(body)
    for name in names:
        path = f"ais/@#/b/{name}"
        if not ours.targets:
            assert ours.owner(path.encode()) is None
            continue
        assert ours.owner(path.encode()) == theirs.get_target_for_object(path).public_net.direct_url
    assert ours.owners([name.encode() for name in names]) == [ours.owner(name.encode()) for name in names]


def test_the_name_that_is_hashed_is_the_sdks(dev_cluster: DevCluster) -> None:
    from aistore.sdk.namespace import Namespace

    client = Client(dev_cluster.endpoint)
    for namespace in (None, Namespace(name="ns"), Namespace(uuid="id", name="ns")):
        bucket = client.bucket("b", provider="aws", namespace=namespace)
        ref = ObjectRef(
            cluster="", provider="aws", bucket="b", name="a/ключ", namespace=namespace.get_path() if namespace else ""
        )
        assert uname(ref) == f"{bucket.get_path()}a/ключ".encode()


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"tmap": 3, "uuid": "x"}', b"\xff", b"null"])
def test_what_is_no_map_is_an_error(body: bytes) -> None:
    with pytest.raises(OriginError, match="cluster map"):
        ClusterMap.decode(body)


def test_a_target_without_an_address_owns_nothing() -> None:
    assert ClusterMap.decode(b'{"tmap": {"t": {"id_digest": 3}}, "uuid": "u"}').targets == ()


@pytest.mark.parametrize(
    ("location", "url"),
    [
        (b"http://t/v1/objects/b/a b\"c'd\\e?x=1&y=2", "http://t/v1/objects/b/a%20b%22c'd%5Ce?x=1&y=2"),
        (b"http://[::1]:80/%d0%ba/%", "http://[::1]:80/%d0%ba/%25"),
        ("http://t/ключ".encode(), "http://t/%D0%BA%D0%BB%D1%8E%D1%87"),
        (b"http://t/a^b`c{d|e}~<>", "http://t/a%5Eb%60c%7Bd%7Ce%7D~%3C%3E"),
    ],
)
def test_locations_are_made_valid(location: bytes, url: str) -> None:
    assert requoted(location) == url
    assert requoted(url.encode()) == url


@pytest.mark.parametrize(("name", "cleaned"), [("a/../b", True), ("..", True), ("a/..", True), ("a..b/..c", False)])
def test_names_that_http_would_change(name: str, cleaned: bool) -> None:
    assert is_cleaned(name) is cleaned


def test_paths() -> None:
    ref = ObjectRef(cluster="", provider="ais", bucket="b", name="a b/%?#\udcff", etl="my etl")
    assert object_path(ref) == "/v1/objects/b/a%20b/%25%3F%23%FF?provider=ais&etl_name=my%20etl"
