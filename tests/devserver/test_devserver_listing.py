"""Listings: properties, pages, prefixes, flags, archives (recorded: 066-084)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from aistore.sdk import Bucket
from aistore.sdk.errors import ErrBckNotFound
from aistore.sdk.list_object_flag import ListObjectFlag
from archives import tar, tgz, zipped
from wire import ask

from aiscache.devserver import DevCluster

NAMES = ["a/b/c.txt", "a/d.txt", "dir/one.bin", "empty", "small.txt", "z"]


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    for name in NAMES:
        bucket.object(name).get_writer().put_content(b"" if name == "empty" else name.encode())
    return bucket


def raw(endpoint: str, bucket: Bucket, accept: str, **value: Any) -> Any:
    body = json.dumps({"action": "list", "name": "", "value": value}).encode()
    answer = ask(endpoint, "GET", f"/v1/buckets/{bucket.name}?provider=ais", body, Accept=accept)
    assert answer.status == 200, answer.body
    return msgspec.msgpack.decode(answer.body) if "msgpack" in accept else json.loads(answer.body)


def test_msgpack_leaves_zero_fields_out(endpoint: str, filled: Bucket) -> None:
    told = raw(endpoint, filled, "application/msgpack", props="name,size,version,checksum,cached,atime")
    assert sorted(told) == ["ContinuationToken", "Entries", "Flags", "UUID"]
    small, empty = told["Entries"][0], told["Entries"][3]
    assert list(small) == ["n", "cs", "a", "v", "s", "f"]
    assert list(empty) == ["n", "cs", "a", "v", "f"]
    assert (small["n"], small["v"], small["s"], small["f"]) == ("a/b/c.txt", "1", 9, 64)
    assert small["cs"] == "d0c3056c07cf224b"  # recorded: 076


def test_json_tells_the_size_as_a_string(endpoint: str, filled: Bucket) -> None:
    told = raw(endpoint, filled, "application/json", props="name,size,version,checksum", prefix="a/b")
    entry = {"name": "a/b/c.txt", "checksum": "d0c3056c07cf224b", "version": "1", "size": "9", "flags": 64}
    assert told["entries"] == [entry]
    assert list(told) == ["uuid", "continuation_token", "entries", "flags"]


def test_without_props_name_and_size(endpoint: str, filled: Bucket) -> None:
    told = raw(endpoint, filled, "application/json")
    assert told["entries"][0] == {"name": "a/b/c.txt", "size": "9", "flags": 64}


def test_times_in_the_format_asked_for(endpoint: str, filled: Bucket) -> None:
    rfc822 = raw(endpoint, filled, "application/json", props="atime", pagesize=1)
    nano = raw(
        endpoint, filled, "application/json", props="atime", pagesize=1, time_format="2006-01-02T15:04:05.999Z07:00"
    )
    assert rfc822["entries"][0]["atime"].endswith(" UTC")
    assert nano["entries"][0]["atime"][10] == "T"


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
def test_pages_hold_everything_once(filled: Bucket, size: int) -> None:
    assert [entry.name for entry in filled.list_all_objects(page_size=size)] == NAMES


def test_full_last_page_has_a_token_and_an_empty_page_follows(filled: Bucket) -> None:
    page = filled.list_objects(page_size=6)
    assert page.continuation_token == "z"
    last = filled.list_objects(page_size=6, uuid=page.uuid, continuation_token=page.continuation_token)
    assert (last.entries, last.continuation_token) == ([], "")


def test_prefix_and_start_after(filled: Bucket) -> None:
    assert [entry.name for entry in filled.list_all_objects(prefix="a/")] == ["a/b/c.txt", "a/d.txt"]
    assert [entry.name for entry in filled.list_objects(start_after="empty").entries] == ["small.txt", "z"]
    assert filled.list_all_objects(prefix="nosuch") == []


def test_flags(filled: Bucket) -> None:
    named = filled.list_objects(flags=[ListObjectFlag.NAME_ONLY], props="name,size,checksum").entries
    assert {(entry.size, entry.checksum) for entry in named} == {(0, "")}
    sized = filled.list_objects(flags=[ListObjectFlag.NAME_SIZE], props="name,size,checksum").entries
    assert sized[0].size == 9
    assert sized[0].checksum == ""


def test_one_level(filled: Bucket) -> None:
    entries = filled.list_objects(flags=[ListObjectFlag.NO_RECURSION]).entries
    assert [(entry.name, entry.flags) for entry in entries] == [
        ("a/", 256),
        ("dir/", 256),
        ("empty", 64),
        ("small.txt", 64),
        ("z", 64),
    ]
    inner = filled.list_objects(flags=[ListObjectFlag.NO_RECURSION], prefix="a/").entries
    assert [entry.name for entry in inner] == ["a/b/", "a/d.txt"]


@pytest.mark.parametrize(("ending", "pack"), [("tar", tar), ("tgz", tgz), ("zip", zipped)])
def test_archives_list_their_members(bucket: Bucket, ending: str, pack: Any) -> None:
    shard = f"shards/s0.{ending}"
    bucket.object(shard).get_writer().put_content(pack({"0/b.jpg": b"12", "0/a.cls": b"3"}))
    entries = bucket.list_objects(flags=[ListObjectFlag.ARCH_DIR], props="name,size,checksum,version").entries
    assert [(entry.name, entry.flags) for entry in entries] == [
        (shard, 576),
        (f"{shard}/0/a.cls", 192),
        (f"{shard}/0/b.jpg", 192),
    ]
    assert [(entry.size, entry.checksum) for entry in entries[1:]] == [(1, ""), (2, "")]
    assert [entry.name for entry in bucket.list_archive(shard)] == [f"{shard}/0/a.cls", f"{shard}/0/b.jpg"]


def test_missing_bucket(client: Any, bucket_name: str) -> None:
    with pytest.raises(ErrBckNotFound):
        client.bucket(bucket_name).list_objects()


@pytest.mark.parametrize("body", [b'{"action":', b'{"action": "list", "value": {"pagesize": "3"}}'])
def test_broken_request_is_refused(endpoint: str, bucket: Bucket, body: bytes) -> None:
    answer = ask(endpoint, "GET", f"/v1/buckets/{bucket.name}?provider=ais", body)
    assert answer.status == 400
    assert "failed to unmarshal" in json.loads(answer.body)["message"]


def test_many_names_in_order(dev_cluster: DevCluster, bucket_name: str) -> None:
    names = dev_cluster.generate(bucket_name, 25_000, 10)
    listed = dev_cluster.client().bucket(bucket_name).list_all_objects()
    assert [entry.name for entry in listed] == list(names)
    assert dev_cluster.requests()["LIST"] == 3


def test_listing_follows_changes(bucket: Bucket) -> None:
    bucket.object("b").get_writer().put_content(b"1")
    bucket.object("a").get_writer().put_content(b"1")
    assert [entry.name for entry in bucket.list_all_objects()] == ["a", "b"]
    bucket.object("a").delete()
    bucket.object("b").get_writer().put_content(b"22")
    assert [(entry.name, entry.size) for entry in bucket.list_all_objects()] == [("b", 2)]
