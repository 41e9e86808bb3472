"""Faults strike what they are meant for, as often as they should, in the way they say."""

from __future__ import annotations

import http.client
import threading
import time

import pytest
from aistore.sdk import Bucket
from wire import Answer, ask, connect, follow, receive, send

from aiscache.devserver import DevCluster, parse_fault
from aiscache.devserver.faults import Fault

DATA = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> str:
    """A bucket of objects that all hold DATA; its path."""
    dev_cluster.put_many(bucket_name, {f"o{i}": DATA for i in range(4)})
    dev_cluster.reset_requests()
    return bucket_name


def get(cluster: DevCluster, bucket: str, name: str = "o0", **headers: str) -> Answer:
    return follow(cluster.endpoint, "GET", f"/v1/objects/{bucket}/{name}?provider=ais", **headers)


def test_status_strikes_count_times_over_the_whole_cluster(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, "o*", status=503, count=3)
    answers = [get(dev_cluster, objects, f"o{i % 4}") for i in range(8)]
    assert [answer.status for answer in answers] == [503] * 3 + [200] * 5
    assert b'"status":503' in answers[0].body
    assert dev_cluster.requests()["GET"] == 8


def test_clear_faults(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, status=500)
    assert get(dev_cluster, objects).status == 500
    dev_cluster.clear_faults()
    assert get(dev_cluster, objects).status == 200


def test_method_and_pattern_choose(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, "o[01]", method="HEAD", status=418)
    path = f"/v1/objects/{objects}/"
    statuses = [follow(dev_cluster.endpoint, "HEAD", f"{path}o{i}").status for i in range(3)]
    assert statuses == [418, 418, 200]
    assert get(dev_cluster, objects, "o0").status == 200
    dev_cluster.fault("other-*", status=500)
    assert get(dev_cluster, objects).status == 200


def test_target_chooses(dev_cluster: DevCluster, objects: str) -> None:
    owner = dev_cluster.owner(objects, "o0")
    dev_cluster.fault(objects, target=(owner + 1) % 3, status=500)
    assert get(dev_cluster, objects).status == 200
    dev_cluster.fault(objects, target=owner, status=500)
    assert get(dev_cluster, objects).status == 500


def test_the_proxy_can_refuse(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, target=-1, status=429, count=1)
    refused = ask(dev_cluster.endpoint, "GET", f"/v1/objects/{objects}/o0")
    assert refused.status == 429
    assert (dev_cluster.requests()["GET"], dev_cluster.requests()["REDIRECT"]) == (1, 0)
    assert get(dev_cluster, objects).status == 200


def test_truncated(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, truncate_at=1000, count=1)
    with pytest.raises(http.client.IncompleteRead) as raised:
        get(dev_cluster, objects)
    assert raised.value.partial == DATA[:1000]
    assert raised.value.expected == len(DATA) - 1000
    assert dev_cluster.requests()["BYTES"] == 1000


def test_reset(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, reset_at=0, count=1)
    with pytest.raises(ConnectionResetError):
        get(dev_cluster, objects)
    assert get(dev_cluster, objects).body == DATA


@pytest.mark.parametrize("at", [0, 100_000, -1])
def test_flipped_byte(dev_cluster: DevCluster, objects: str, at: int) -> None:
    dev_cluster.fault(objects, flip_byte_at=at, count=1)
    answer = get(dev_cluster, objects)
    wrong = [i for i, (got, sent) in enumerate(zip(answer.body, DATA, strict=True)) if got != sent]
    assert wrong == [at % len(DATA)]
    assert answer.headers == answer.headers | {"Ais-Checksum-Type": "xxhash2"}
    assert get(dev_cluster, objects).body == DATA


def test_wrong_length(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, wrong_length=100, count=1)
    assert get(dev_cluster, objects).body == DATA[:100]
    dev_cluster.fault(objects, wrong_length=len(DATA) + 1, count=1)
    with pytest.raises(http.client.IncompleteRead):
        get(dev_cluster, objects)


def test_stalled(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, "o0", stall_at=5)
    with connect(dev_cluster.targets[dev_cluster.owner(objects, "o0")]) as client:
        send(client, "GET", f"/v1/objects/{objects}/o0")
        got = b""
        while not got.endswith(b"\r\n\r\n" + DATA[:5]):
            got += client.recv(10_000)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
    dev_cluster.clear_faults()
    assert get(dev_cluster, objects).body == DATA


def test_redirected_elsewhere(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, "o0", target=-1, redirect_to="http://127.0.0.1:9/")
    answer = ask(dev_cluster.endpoint, "GET", f"/v1/objects/{objects}/o0?provider=ais")
    assert answer.status == 301
    assert answer.headers["Location"] == f"http://127.0.0.1:9/v1/objects/{objects}/o0?provider=ais"


def test_slow_drip(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, bytes_per_s=len(DATA) * 10, count=1)
    start = time.monotonic()
    assert get(dev_cluster, objects).body == DATA
    assert time.monotonic() - start > 0.08


def test_delays_do_not_hold_up_others(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, "o0", delay_s=0.3)
    url = dev_cluster.targets[dev_cluster.owner(objects, "o0")]
    other = next(f"n{i}" for i in range(100) if dev_cluster.owner(objects, f"n{i}") == dev_cluster.owner(objects, "o0"))
    dev_cluster.put_many(objects, {other: b"quick"})
    with connect(url) as slow:
        start = time.monotonic()
        send(slow, "GET", f"/v1/objects/{objects}/o0")
        assert ask(url, "GET", f"/v1/objects/{objects}/{other}").body == b"quick"
        assert time.monotonic() - start < 0.25
        assert receive(slow).body == DATA
        assert time.monotonic() - start >= 0.3


def test_delay_of_every_get_is_served_concurrently(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.set_delay(0.2)
    answers: list[Answer] = []
    readers = [threading.Thread(target=lambda: answers.append(get(dev_cluster, objects))) for _ in range(10)]
    start = time.monotonic()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert 0.2 <= time.monotonic() - start < 1.0
    assert [answer.body for answer in answers] == [DATA] * 10


def test_listing_that_comes_short(dev_cluster: DevCluster, bucket_name: str) -> None:
    dev_cluster.generate(bucket_name, 100, 10)
    bucket = dev_cluster.client().bucket(bucket_name)
    dev_cluster.fault(bucket_name, list_drop=7, count=1)
    assert len(bucket.list_all_objects()) == 93
    dev_cluster.fault(bucket_name, list_drop=0.25, count=1)
    assert len(bucket.list_all_objects()) == 75
    assert len(bucket.list_all_objects()) == 100


def test_listing_that_fails(dev_cluster: DevCluster, objects: str) -> None:
    dev_cluster.fault(objects, method="LIST", status=500)
    body = b'{"action": "list", "value": {}}'
    assert ask(dev_cluster.endpoint, "GET", f"/v1/buckets/{objects}", body).status == 500
    assert dev_cluster.requests()["LIST"] == 1


def test_put_that_fails_changes_nothing(dev_cluster: DevCluster, objects: str, bucket_name: str) -> None:
    dev_cluster.fault(objects, method="PUT", status=500, count=1)
    path = f"/v1/objects/{objects}/o0?provider=ais"
    assert follow(dev_cluster.endpoint, "PUT", path, b"new").status == 500
    assert get(dev_cluster, objects).body == DATA
    assert follow(dev_cluster.endpoint, "PUT", path, b"new").status == 200
    assert get(dev_cluster, objects).body == b"new"


def test_parse_fault() -> None:
    told = parse_fault("bucket/na*me,status=503,count=2,delay_s=0.5,method=GET")
    assert told == Fault(bucket="bucket", name="na*me", status=503, count=2, delay_s=0.5, method="GET")
    assert parse_fault("bucket,list_drop=0.5") == Fault(bucket="bucket", list_drop=0.5)
    assert parse_fault("b/dir/x,flip_byte_at=-1").name == "dir/x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with BUCKET/NAME"),
        ("/x,status=1", "must begin with BUCKET/NAME"),
        ("b/x,nosuch=1", "'nosuch=1' must be one of method="),
        ("b/x,status", "'status' must be one of method="),
        ("b/x,status=abc", "'status=abc': expected `int`, got `str`"),
        ("b/x,status=99", "must be an HTTP status"),
        ("b/x,count=0", "must be at least 1"),
        ("b/x,method=FETCH", "must be one of GET, HEAD"),
        ("b/x,delay_s=-1", "must not be negative"),
    ],
)
def test_parse_fault_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="fault") as raised:
        parse_fault(text)
    assert reason in str(raised.value)


def test_unknown_field_is_told(dev_cluster: DevCluster, bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="nosuch"):
        dev_cluster.fault(bucket.name, nosuch=1)
