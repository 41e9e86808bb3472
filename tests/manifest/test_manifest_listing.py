"""Listing a dataset's sources: the same rows in the same order as aistore.pytorch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest
from aistore.pytorch import AISMapDataset
from aistore.sdk import AISSource, Bucket, Client
from aistore.sdk.obj.object import Object

from aiscache.devserver import DevCluster
from aiscache.errors import BucketNotFoundError, ConfigError, ObjectNotFoundError
from aiscache.manifest import Draft, Listing, Manifest
from aiscache.origin import HeapSink, Origin


@pytest.fixture
def client(dev_cluster: DevCluster) -> Client:
    return Client(dev_cluster.endpoint)


@pytest.fixture
def bucket(client: Client, dev_cluster: DevCluster, bucket_name: str) -> Bucket:
    names = [*(f"a/{n:03}" for n in range(30)), *(f"b/{n}" for n in range(5)), "empty", "uni/ключ"]
    dev_cluster.put_many(bucket_name, {name: b"" if name == "empty" else name.encode() for name in names})
    return client.bucket(bucket_name)


def built(listing: Listing) -> Manifest:
    draft: Draft = listing.build()
    return Manifest.of_bytes(b"".join(draft.parts()))


class Own(AISSource):
    """A source of a user's own."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @property
    def client(self) -> object:
        return self._bucket.client

    def list_all_objects_iter(self, prefix: str = "", props: str = "name,size") -> Iterable[Object]:
        return reversed(list(self._bucket.list_all_objects_iter(prefix=prefix, props=props)))

    def list_urls(self, prefix: str = "", etl: object = None) -> Iterable[str]:
        return []


@pytest.mark.parametrize(
    "case", ["bucket", "prefix", "prefixes", "none", "empty", "group", "range", "template", "own", "mixed"]
)
def test_rows_are_those_of_aistore_pytorch(bucket: Bucket, client: Client, case: str) -> None:
    group = bucket.objects(obj_names=["b/3", "empty", "a/007", "b/3"])
    sources: object = bucket
    prefixes: dict[object, object] = {}
    if case == "prefix":
        prefixes = {bucket: "a/00"}
    elif case == "prefixes":
        prefixes = {bucket: ["b/", "a/01", "b/"]}
    elif case == "none":
        prefixes = {bucket: None, client.bucket(bucket.name): "zzz"}
    elif case == "empty":
        prefixes = {bucket: []}
    elif case == "group":
        sources, prefixes = group, {group: ["b/", ""]}
    elif case == "range":
        from aistore.sdk.multiobj import ObjectRange

        sources = bucket.objects(obj_range=ObjectRange("a/", 3, 9, pad_width=3, step=2))
    elif case == "template":
        sources = bucket.objects(obj_template="b/{0..4}")
    elif case == "own":
        sources = Own(bucket)
    elif case == "mixed":
        own = Own(bucket)
        sources, prefixes = [group, bucket, own], {own: "b/", bucket: ["uni", "a/02"]}
    manifest = built(Listing(sources, prefixes))
    theirs = AISMapDataset(sources, prefixes).get_obj_list()
    assert [ref.name for ref in manifest] == [item.name for item in theirs]
    listed = {entry.name: entry for entry in bucket.list_all_objects(props="name,size,checksum,version")}
    for ref in manifest:
        entry = listed[ref.name]
        assert (ref.size, ref.checksum, ref.version) == (entry.size, entry.checksum, entry.version)
        assert (ref.bucket, ref.provider, ref.cluster) == (bucket.name, "ais", Origin.from_client(client).uuid)


def test_rows_can_be_fetched(bucket: Bucket, client: Client) -> None:
    manifest = built(Listing(bucket))
    for fetched in Origin.from_client(client).fetch(manifest, HeapSink()):
        assert bytes(fetched.result()) == (b"" if fetched.ref.name == "empty" else fetched.ref.name.encode())


def test_a_group_costs_one_head_per_object_and_names_what_is_missing(bucket: Bucket, dev_cluster: DevCluster) -> None:
    dev_cluster.reset_requests()
    assert len(built(Listing(bucket.objects(obj_names=["a/001", "a/002"])))) == 2
    requests = dev_cluster.requests()
    assert (requests["HEAD"], requests["LIST"]) == (2, 0)
    with pytest.raises(ObjectNotFoundError, match=f"ais://{bucket.name}/nosuch"):
        Listing(bucket.objects(obj_names=["a/001", "nosuch"])).build()


def test_identity_names_what_is_listed_without_a_request(bucket: Bucket, client: Client) -> None:
    def identity(sources: object, prefixes: object = None, etl: str = "") -> str:
        return Listing(sources, prefixes, etl=etl).identity

    nowhere = Client("http://127.0.0.1:9")
    same = client.bucket(bucket.name)
    assert identity(bucket) == identity(same) == identity(bucket, {same: "a"}) == identity(bucket, {bucket: None})
    assert len(identity(bucket)) == 32
    group = bucket.objects(obj_names=["a/001"])
    different = [
        identity(bucket),
        identity(bucket, {bucket: "a"}),
        identity(bucket, {bucket: ["a", "b"]}),
        identity(bucket, etl="e"),
        identity([bucket, bucket]),
        identity(client.bucket("other")),
        identity(client.bucket(bucket.name, provider="aws")),
        identity(nowhere.bucket(bucket.name)),
        identity(group),
        identity(bucket.objects(obj_names=["a/002"])),
        identity(bucket.objects(obj_names=["a/001", "a/002"])),
    ]
    assert len(set(different)) == len(different)
    assert identity(Own(bucket)) == ""


@pytest.mark.parametrize("sources", [[], None, "bucket", [3]])
def test_sources_that_are_none(sources: object) -> None:
    with pytest.raises(ConfigError, match="ais_source_list"):
        Listing(sources)


def test_a_missing_bucket(client: Client) -> None:
    with pytest.raises(BucketNotFoundError, match="no-such"):
        Listing(client.bucket("no-such")).build()
    with suppress(BucketNotFoundError):
        Listing(client.bucket("no-such")).build()
