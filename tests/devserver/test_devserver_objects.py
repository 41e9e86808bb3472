"""Objects: versions, checksums, members of archives, transforms, owners."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import xxhash
from aistore.sdk import Bucket, Client
from aistore.sdk.archive_config import ArchiveConfig, ArchiveMode
from aistore.sdk.errors import AISError, ErrETLNotFound, ErrObjNotFound
from aistore.sdk.etl import ETLConfig
from archives import tar, tgz, untar, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire import ask, follow

from aiscache.devserver import DevCluster, hrw

DATA = b"hello world"
CHECKSUMS = {
    "xxhash": xxhash.xxh64(DATA).hexdigest(),
    "xxhash2": xxhash.xxh64(DATA).hexdigest(),
    "md5": hashlib.md5(DATA).hexdigest(),
    "sha256": hashlib.sha256(DATA).hexdigest(),
    "sha512": hashlib.sha512(DATA).hexdigest(),
    "crc32c": google_crc32c.Checksum(DATA).digest().hex(),
    "none": None,
}


def make(endpoint: str, bucket: str, **props: Any) -> int:
    body = json.dumps({"action": "create-bck", "value": props}).encode()
    return ask(endpoint, "POST", f"/v1/buckets/{bucket}?provider=ais", body).status


@pytest.mark.parametrize("kind", CHECKSUMS)
def test_checksum_types(endpoint: str, client: Client, bucket_name: str, kind: str) -> None:
    assert make(endpoint, bucket_name, checksum={"type": kind}) == 200
    bucket = client.bucket(bucket_name)
    bucket.object("h").get_writer().put_content(DATA)
    answer = follow(endpoint, "GET", f"/v1/objects/{bucket_name}/h")
    assert answer.headers.get("Ais-Checksum-Value") == CHECKSUMS[kind]
    assert answer.headers.get("Ais-Checksum-Type") == (None if kind == "none" else kind)
    listed = bucket.list_objects(props="name,checksum").entries[0]
    assert listed.checksum == (CHECKSUMS[kind] or "")
    bucket.delete()


def test_unknown_checksum_type_is_refused(endpoint: str, bucket_name: str) -> None:
    assert make(endpoint, bucket_name, checksum={"type": "cesxxhash"}) == 400


def versions(bucket: Bucket, endpoint: str) -> str | None:
    return follow(endpoint, "GET", f"/v1/objects/{bucket.name}/v").headers.get("Ais-Version")


def test_versions_grow_and_restart_after_delete(endpoint: str, bucket: Bucket) -> None:
    thing = bucket.object("v")
    told = []
    for data in (b"one", b"two", b"two"):
        thing.get_writer().put_content(data)
        told.append(versions(bucket, endpoint))
    thing.delete()
    thing.get_writer().put_content(b"reborn")
    assert [*told, versions(bucket, endpoint)] == ["1", "2", "3", "1"]


def test_versioning_off(endpoint: str, client: Client, bucket_name: str) -> None:
    make(endpoint, bucket_name, versioning={"enabled": False})
    bucket = client.bucket(bucket_name)
    bucket.object("v").get_writer().put_content(b"x")
    assert versions(bucket, endpoint) is None
    assert bucket.list_objects(props="name,version").entries[0].version == ""
    bucket.delete()


def test_deleted_and_missing_objects(bucket: Bucket) -> None:
    bucket.object("x").get_writer().put_content(b"x")
    bucket.object("x").delete()
    with pytest.raises(ErrObjNotFound):
        bucket.object("x").get_reader().read_all()
    with pytest.raises(AISError):
        bucket.object("x").head()
    with pytest.raises(ErrObjNotFound):
        bucket.object("x").delete()


def test_large_object_whole_and_in_parallel_ranges(bucket: Bucket) -> None:
    data = bytes(range(256)) * (72 << 10)  # 18 MiB: more than two of the SDK's ranges
    bucket.object("big").get_writer().put_content(data)
    assert bucket.object("big").get_reader().read_all() == data
    with bucket.object("big").get_reader(num_workers=2).read_all() as buffer:
        assert buffer.tobytes() == data


@pytest.mark.parametrize(("ending", "pack"), [("tar", tar), ("tgz", tgz), ("zip", zipped)])
def test_members_of_archives(bucket: Bucket, ending: str, pack: Any) -> None:
    thing = bucket.object(f"s.{ending}")
    thing.get_writer().put_content(pack({"0/a.cls": b"7", "0/a.jpg": b"jpeg", "0/b.cls": b"8"}))

    def read(**config: Any) -> bytes:
        return thing.get_reader(archive_config=ArchiveConfig(**config)).read_all()

    assert read(archpath="0/a.jpg") == b"jpeg"
    assert untar(read(regex="0/a", mode=ArchiveMode.WDSKEY)) == [("0/a.cls", b"7"), ("0/a.jpg", b"jpeg")]
    assert untar(read(regex=".cls", mode=ArchiveMode.SUFFIX)) == [("0/a.cls", b"7"), ("0/b.cls", b"8")]
    with pytest.raises(ErrObjNotFound):
        read(archpath="nosuch")


def test_member_of_what_is_no_archive_is_refused(bucket: Bucket) -> None:
    bucket.object("s.txt").get_writer().put_content(b"text")
    with pytest.raises(AISError, match="unrecognized or unsupported file format"):
        bucket.object("s.txt").get_reader(archive_config=ArchiveConfig(archpath="x")).read_all()


def test_member_answers_carry_no_checksum_and_no_ranges(endpoint: str, bucket: Bucket) -> None:
    bucket.object("s.tar").get_writer().put_content(tar({"m": b"member"}))
    whole = follow(endpoint, "GET", f"/v1/objects/{bucket.name}/s.tar?provider=ais&archpath=m")
    assert not [name for name in whole.headers if name.startswith("Ais-")]
    part = follow(endpoint, "GET", f"/v1/objects/{bucket.name}/s.tar?provider=ais&archpath=m", Range="bytes=0-1")
    assert (part.status, json.loads(part.body)["tcode"]) == (400, "ErrUnsupp")


def test_transforms(dev_cluster: DevCluster, bucket: Bucket) -> None:
    bucket.object("x").get_writer().put_content(b"abc")
    for name, kind in {"shout": "upper", "back": "reverse", "same": "echo"}.items():
        dev_cluster.add_etl(name, kind)
    read = {name: bucket.object("x").get_reader(etl=ETLConfig(name)).read_all() for name in ("shout", "back", "same")}
    assert read == {"shout": b"ABC", "back": b"cba", "same": b"abc"}
    with pytest.raises(ErrETLNotFound):
        bucket.object("x").get_reader(etl=ETLConfig("nosuch")).read_all()
    with pytest.raises(ValueError, match="must be one of"):
        dev_cluster.add_etl("x", "nosuch")


@given(names=st.lists(st.text(min_size=1, max_size=20), max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_owners_are_those_of_the_sdk(dev_cluster: DevCluster, names: list[str]) -> None:
    smap = dev_cluster.client().cluster().get_info()
    digests = [target.id_digest for target in smap.tmap.values()]
    unames = [f"ais/@#/b/{name.encode('utf-8', 'replace').decode()}" for name in names]
    ids = list(smap.tmap)
    expected = [ids.index(smap.get_target_for_object(uname).daemon_id) for uname in unames]
    assert [hrw.owner(uname, digests) for uname in unames] == expected
    assert list(hrw.owners(unames, digests)) == expected


def test_bucket_life(client: Client, bucket: Bucket) -> None:
    assert bucket.name in [info.name for info in client.cluster().list_buckets()]
    bucket.object("a").get_writer().put_content(b"12345")
    bucket.object("b").get_writer().put_content(b"1")
    summary = bucket.summary()
    assert (summary["ObjCount"]["obj_count_present"], summary["TotalSize"]["size_all_present_objs"]) == ("2", "6")
    props = json.loads(bucket.head()["Ais-Bucket-Props"])
    assert props["checksum"]["type"] == "xxhash2"


def test_info_of_a_bucket(endpoint: str, bucket: Bucket) -> None:
    target = f"/v1/buckets/{bucket.name}?provider=ais&presence=0&bsumm_remote=True"
    first = ask(endpoint, "HEAD", target)
    job = first.headers["Ais-Xaction-Id"]
    second = ask(endpoint, "HEAD", f"{target}&uuid={job}")
    assert (first.status, second.status) == (202, 200)
    assert json.loads(second.headers["Ais-Bucket-Summ"])["name"] == bucket.name


def test_put_many_and_generate(dev_cluster: DevCluster, bucket_name: str) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dev_cluster.put_many(bucket_name, {"x/1": b"one", "x/2": b""})
    names = dev_cluster.generate(bucket_name, 100, (0, 5000), seed=7, prefix="g/", suffix=".jpg")
    assert bucket.object("x/1").get_reader().read_all() == b"one"
    assert [entry.name for entry in bucket.list_all_objects()] == [*names, "x/1", "x/2"]
    for entry in bucket.list_all_objects(prefix="g/", props="name,size,checksum"):
        content = names.content(entry.name)
        assert entry.size == len(content) == names.size(entry.name)
        assert entry.checksum == xxhash.xxh64(content).hexdigest()
    for name in names[::9]:
        assert bucket.object(name).get_reader().read_all() == names.content(name)


def test_generated_bytes_of_every_size(dev_cluster: DevCluster, bucket_name: str) -> None:
    for size in (1, 15, 16, 17, (1 << 20) + 15, (1 << 20) + 17, 3_000_001):
        name = dev_cluster.generate(bucket_name, 1, size, prefix=f"{size}-")[0]
        data = dev_cluster.client().bucket(bucket_name).object(name).get_reader().read_all()
        assert len(data) == size


def test_bodies_in_a_directory(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    with DevCluster(targets=1, directory=tmp_path) as cluster:
        bucket = cluster.client().bucket("b").create()
        bucket.object("big").get_writer().put_content(data)
        cluster.put_many("b", {"small": b"s", "s.tar": tar({"m": b"member"})})
        assert bucket.object("big").get_reader().read_all() == data
        assert bucket.object("big").get_reader(byte_range="bytes=1000-600000").read_all() == data[1000:600001]
        assert bucket.object("small").get_reader().read_all() == b"s"
        assert bucket.object("s.tar").get_reader(archive_config=ArchiveConfig(archpath="m")).read_all() == b"member"
        assert cluster.requests()["BYTES"] >= len(data) + 599_001
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3
    assert list(tmp_path.iterdir()) == []
