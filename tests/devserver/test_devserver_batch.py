"""Get-Batch (recorded: 094-118, 201, 213-215)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aistore.sdk import Bucket, Client
from aistore.sdk.batch.batch import Batch
from aistore.sdk.errors import AISError, ErrBckNotFound
from archives import tar, untar
from wire import ask, follow

from aiscache.devserver import DevCluster

NAMES = [f"o/{i:03d}" for i in range(41)]


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    for name in NAMES:
        bucket.object(name).get_writer().put_content(name.encode() * 10)
    bucket.object("uni/日本.txt").get_writer().put_content(b"nihon")
    bucket.object("s.tar").get_writer().put_content(tar({"m/1.jpg": b"jpg-1", "m/2.jpg": b"jpg-2"}))
    return bucket


def outcome(batch: Batch) -> list[tuple[str, bytes, bool]]:
    return [(info.obj_name, bytes(data), info.err_msg is not None) for info, data in batch.get()]


def raw(endpoint: str, bucket: Bucket, entries: list[Any], **settings: Any) -> Any:
    items = [{"objname": entry} if isinstance(entry, str) else entry for entry in entries]
    body = json.dumps({"in": items, "mime": ".tar", "coer": True, "onob": False, "strm": True} | settings).encode()
    return follow(endpoint, "GET", f"/v1/ml/moss/{bucket.name}?provider=ais", body)


@pytest.mark.parametrize("streaming", [True, False])
def test_entries_in_the_order_asked_for(client: Client, filled: Bucket, streaming: bool) -> None:
    names = [*reversed(NAMES), "uni/日本.txt", NAMES[0]]
    got = outcome(client.batch(names, filled, streaming_get=streaming))
    assert [name for name, _, _ in got] == names
    assert all(data == (b"nihon" if name[0] == "u" else name.encode() * 10) for name, data, _ in got)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("mime", [".tar", ".tgz", ".zip"])
def test_formats(client: Client, filled: Bucket, streaming: bool, mime: str) -> None:
    batch = client.batch(NAMES[:3], filled, output_format=mime, streaming_get=streaming)
    assert outcome(batch) == [(name, name.encode() * 10, False) for name in NAMES[:3]]


@pytest.mark.parametrize("streaming", [True, False])
def test_missing_entries_are_told(client: Client, filled: Bucket, streaming: bool) -> None:
    got = outcome(client.batch([NAMES[0], "nosuch", NAMES[1]], filled, streaming_get=streaming))
    assert got == [(NAMES[0], b"o/000" * 10, False), ("nosuch", b"", True), (NAMES[1], b"o/001" * 10, False)]


def test_stream_names_hold_the_bucket_and_what_is_missing(endpoint: str, filled: Bucket) -> None:
    answer = raw(endpoint, filled, [NAMES[0], "nosuch"])
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    names = [name for name, _ in untar(answer.body)]
    assert names == [f"{filled.name}/o/000", f"__404__/{filled.name}/nosuch"]
    short = raw(endpoint, filled, [NAMES[0]], onob=True)
    assert untar(short.body) == [("o/000", b"o/000" * 10)]


def test_members_ranges_and_opaque_data(client: Client, filled: Bucket) -> None:
    batch = client.batch(bucket=filled)
    batch.add("s.tar", archpath="m/2.jpg")
    batch.add(NAMES[0], start=2, length=3)
    batch.add(NAMES[1], opaque=b"id-1")
    batch.add(NAMES[1], start=45, length=-1)
    batch.add("s.tar", archpath="nosuch")
    got = [(info.archpath, bytes(data), info.opaque, info.err_msg is None) for info, data in batch.get()]
    assert got == [
        ("m/2.jpg", b"jpg-2", None, True),
        ("", b"000", None, True),
        ("", b"o/001" * 10, b"id-1", True),
        ("", b"o/001", None, True),
        ("nosuch", b"", None, False),
    ]


def test_a_range_beyond_the_end_ends_the_stream_early_and_in_good_order(endpoint: str, filled: Bucket) -> None:
    entries = [*NAMES[:5], {"objname": NAMES[5], "start": 100_000, "length": 10}, *NAMES[6:10]]
    answer = raw(endpoint, filled, entries)
    assert answer.status == 200
    assert len(untar(answer.body)) == 5
    assert answer.body.endswith(bytes(1024))
    refused = raw(endpoint, filled, entries, strm=False)
    assert refused.status == 400
    assert json.loads(refused.body)["tcode"] == "ErrRangeNotSatisfiable"


def test_an_entry_missing_on_the_answering_target_ends_a_strict_stream(endpoint: str, filled: Bucket) -> None:
    lengths = {len(untar(raw(endpoint, filled, [*NAMES, f"nosuch-{i}"], coer=False).body)) for i in range(12)}
    assert 41 in lengths
    assert lengths <= {41, 42}  # 42 where another target would have had it


def test_colocation_asks_the_owner(dev_cluster: DevCluster, client: Client, filled: Bucket) -> None:
    name = NAMES[0]
    body = json.dumps({"in": [{"objname": name, "bucket": filled.name}], "mime": ".tar", "strm": True}).encode()
    owner = dev_cluster.targets[dev_cluster.owner(filled.name, name)]
    for _ in range(3):
        answer = ask(dev_cluster.endpoint, "GET", f"/v1/ml/moss/{filled.name}?provider=ais&coloc=1", body)
        assert answer.status == 307
        assert answer.headers["Location"].startswith(owner)


def test_objects_of_several_buckets(client: Client, filled: Bucket) -> None:
    batch = client.batch()
    batch.add(filled.object(NAMES[3]))
    assert outcome(batch) == [(NAMES[3], b"o/003" * 10, False)]


def test_missing_bucket(client: Client, bucket_name: str) -> None:
    with pytest.raises(ErrBckNotFound):
        client.batch(["x"], client.bucket(bucket_name)).get()


def test_a_batch_counts_once(dev_cluster: DevCluster, client: Client, filled: Bucket) -> None:
    dev_cluster.reset_requests()
    outcome(client.batch(NAMES, filled))
    counted = dev_cluster.requests()
    assert (counted["BATCH"], counted["GET"], counted["REDIRECT"]) == (1, 0, 1)


def test_faults_of_entries(dev_cluster: DevCluster, client: Client, filled: Bucket) -> None:
    dev_cluster.fault(filled.name, NAMES[2], batch_entry="end", count=1)
    assert [name for name, _ in untar(raw(dev_cluster.endpoint, filled, NAMES[:4]).body)] == [
        f"{filled.name}/{name}" for name in NAMES[:2]
    ]
    dev_cluster.fault(filled.name, NAMES[2], batch_entry="missing", count=1)
    got = outcome(client.batch(NAMES[:4], filled))
    assert [failed for _, _, failed in got] == [False, False, True, False]
    assert not any(failed for _, _, failed in outcome(client.batch(NAMES[:4], filled)))


def test_fault_of_the_whole_batch(dev_cluster: DevCluster, client: Client, filled: Bucket) -> None:
    dev_cluster.fault(filled.name, NAMES[2], method="BATCH", status=400)
    with pytest.raises(AISError):
        client.batch(NAMES[:4], filled).get()
    assert len(outcome(client.batch(NAMES[:2], filled))) == 2
