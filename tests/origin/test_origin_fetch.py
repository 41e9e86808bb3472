"""Fetching from a cluster: what comes back, from where, and with how many requests. Promise 1: never wrong."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import xxhash
from aistore.sdk import Client
from aistore.sdk.namespace import Namespace

from aiscache.devserver import DevCluster
from aiscache.errors import BucketNotFoundError, EtlNotFoundError, ObjectNotFoundError
from aiscache.keys import ObjectRef
from aiscache.origin import BucketName, HeapSink, Origin
from aiscache.origin.routes import Routes

NAMES = [
    "a/b/c.txt",
    "with space.txt",
    "uni/ключ-日本.txt",
    "pct%20x%.txt",
    "q?x#y&z=1.txt",
    "plus+x.txt",
    "tilde~quote'\"x.txt",
    "semi;colon:at@x,eq=.txt",
    "back\\slash.txt",
    "dbl//slash",
    "n" * 1100,
]


@pytest.fixture
def origin(dev_cluster: DevCluster) -> Iterator[Origin]:
    with closing(Origin.from_client(Client(dev_cluster.endpoint))) as origin:
        yield origin


def listed(origin: Origin, bucket: str) -> list[ObjectRef]:
    return [
        ObjectRef(
            cluster=origin.uuid,
            provider="ais",
            bucket=bucket,
            name=entry.n,
            size=entry.s,
            checksum=entry.cs,
            version=entry.v,
        )
        for page in origin.list_pages(BucketName(name=bucket))
        for entry in page
    ]


def test_every_name_comes_straight_from_its_target(dev_cluster: DevCluster, origin: Origin, bucket_name: str) -> None:
    dev_cluster.put_many(bucket_name, {name: name.encode() * 3 for name in NAMES})
    refs = [ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name=name) for name in NAMES]
    dev_cluster.reset_requests()
    sink = HeapSink()
    for fetched in origin.fetch(refs, sink):
        assert bytes(fetched.result()) == fetched.ref.name.encode() * 3
        assert fetched.verified
        assert fetched.attempts == 1
        assert fetched.target in dev_cluster.targets
        assert fetched.body is sink.bodies[fetched.index]
        assert fetched.xxh64 == xxhash.xxh64_intdigest(bytes(fetched.result()))
    requests = dev_cluster.requests()
    assert (requests["GET"], requests["REDIRECT"], requests["SMAP"]) == (len(NAMES), 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_comes_through_the_proxy_too(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev_cluster.put_many(bucket_name, {name: b"body"})
    monkeypatch.setattr(Routes, "owner", lambda *_: None)
    fetched = origin.fetch_one(
        ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name=name), HeapSink()
    )
    assert bytes(fetched.result()) == b"body"
    assert fetched.target in dev_cluster.targets


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 300_000, 5_000_000])
@pytest.mark.parametrize("kind", ["xxhash2", "xxhash", "md5", "crc32c", "sha256", "sha512", "none"])
def test_sizes_and_checksum_types(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str, size: int, kind: str
) -> None:
    body = secrets.token_bytes(size)
    dev_cluster.create_bucket(bucket_name, checksum=kind)
    dev_cluster.put_many(bucket_name, {"x": body})
    (ref,) = listed(origin, bucket_name)
    sink = HeapSink()
    fetched = origin.fetch_one(ref, sink)
    assert bytes(fetched.result()) == body
    assert fetched.size == size == sink.bodies[0].length
    assert fetched.verified == (kind != "none")


def test_what_comes_later_does_not_wait_for_what_is_slow(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str
) -> None:
    dev_cluster.put_many(bucket_name, {"slow": b"slow", "quick": b"quick", "last": b"last"})
    dev_cluster.fault(bucket_name, "slow", method="GET", delay_s=1.0, count=1)
    slow, quick, last = (
        ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name=name)
        for name in ("slow", "quick", "last")
    )
    ended: list[str] = []

    def order() -> Iterator[ObjectRef | None]:
        yield from (slow, None, quick)
        while "quick" not in ended:
            yield None
        yield last
        while True:
            yield None

    for fetched in origin.fetch(order(), HeapSink(), in_flight=4):
        ended.append(bytes(fetched.result()).decode())
    assert ended == ["quick", "last", "slow"]


def test_a_fetch_of_nothing_at_the_moment_ends(origin: Origin, bucket_name: str) -> None:
    outside = ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name="a/../b")
    assert list(origin.fetch(iter([None]), HeapSink())) == []
    assert [fetched.ref for fetched in origin.fetch(iter([outside, None]), HeapSink())] == [outside]


def test_completion_order_and_room(dev_cluster: DevCluster, origin: Origin, bucket_name: str) -> None:
    generated = dev_cluster.generate(bucket_name, 100, (1, 50_000))
    assert generated is not None
    refs = listed(origin, bucket_name)
    taken = itertools.count()

    def slowly() -> Iterator[ObjectRef]:
        for ref in refs:
            next(taken)
            yield ref

    iterator = origin.fetch(slowly(), HeapSink(), in_flight=7)
    first = next(iterator)
    assert first.error is None
    assert next(taken) <= 3 * 7
    rest = list(iterator)
    assert {fetched.index for fetched in [first, *rest]} == set(range(100))
    assert all(fetched.size == fetched.ref.size for fetched in rest)


def test_abandoning_in_the_middle_leaves_the_pool_clean(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str
) -> None:
    dev_cluster.generate(bucket_name, 50, 20_000)
    refs = listed(origin, bucket_name)
    for _ in range(3):
        with closing(origin.fetch(refs, HeapSink())) as iterator:  # type: ignore[type-var]
            next(iterator)
    assert sum(fetched.verified for fetched in origin.fetch(refs, HeapSink())) == 50


def test_threads_fetch_at_the_same_time(dev_cluster: DevCluster, origin: Origin, bucket_name: str) -> None:
    dev_cluster.generate(bucket_name, 60, 10_000)
    refs = listed(origin, bucket_name)
    done: list[int] = []

    def work() -> None:
        done.append(sum(fetched.verified for fetched in origin.fetch(refs, HeapSink())))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [60] * 6


def test_a_missing_object_does_not_hurt_the_others(dev_cluster: DevCluster, origin: Origin, bucket_name: str) -> None:
    dev_cluster.put_many(bucket_name, {f"o{n}": b"x" * n for n in range(1, 9)})
    refs = listed(origin, bucket_name)
    refs.insert(3, ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name="nosuch/thing"))
    results = sorted(origin.fetch(refs, HeapSink()), key=lambda fetched: fetched.index)
    assert [fetched.error is None for fetched in results] == [True] * 3 + [False] + [True] * 5
    error = results[3].error
    assert isinstance(error, ObjectNotFoundError)
    assert f"ais://{bucket_name}/nosuch/thing" in str(error)
    assert dev_cluster.endpoint in str(error)


def test_a_missing_bucket_names_itself(dev_cluster: DevCluster, origin: Origin) -> None:
    ref = ObjectRef(cluster=origin.uuid, provider="ais", bucket="no-such-bucket", name="x")
    with pytest.raises(BucketNotFoundError, match="ais://no-such-bucket") as caught:
        origin.fetch_one(ref, HeapSink())
    assert caught.value.status == 404  # type: ignore[attr-defined]
    with pytest.raises(BucketNotFoundError, match="ais://no-such-bucket"):
        list(origin.list_pages(BucketName(name="no-such-bucket")))
    with pytest.raises(BucketNotFoundError, match="ais://no-such-bucket"):
        origin.head([ref])


def test_a_name_with_dot_dot_is_refused_before_it_becomes_another(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str
) -> None:
    dev_cluster.put_many(bucket_name, {"secret": b"x"})
    ref = ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name="a/../secret")
    with pytest.raises(ObjectNotFoundError, match=r"\.\."):
        origin.fetch_one(ref, HeapSink())


def test_etl_output_of_another_size_comes_through_the_proxy(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str
) -> None:
    dev_cluster.put_many(bucket_name, {"x": b"abc" * 50_000})
    dev_cluster.add_etl("twice", "double")
    (source,) = listed(origin, bucket_name)
    ref = ObjectRef(
        cluster=source.cluster, provider="ais", bucket=bucket_name, name="x", etl="twice", size=source.size,
        checksum=source.checksum, version=source.version,
    )  # fmt: skip
    sink = HeapSink()
    fetched = origin.fetch_one(ref, sink)
    assert fetched.size == 300_000 == sink.bodies[0].length
    assert len(bytes(fetched.result())) == 300_000
    missing = ObjectRef(cluster=source.cluster, provider="ais", bucket=bucket_name, name="x", etl="nosuch")
    with pytest.raises(EtlNotFoundError, match="nosuch"):
        origin.fetch_one(missing, HeapSink())


def test_head_fills_in_what_a_group_does_not_know(dev_cluster: DevCluster, origin: Origin, bucket_name: str) -> None:
    dev_cluster.put_many(bucket_name, {**{f"o{n:02}": b"x" * (n + 1) for n in range(40)}, "empty": b""})
    refs = listed(origin, bucket_name)
    bare = [ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name=ref.name) for ref in refs]
    dev_cluster.reset_requests()
    assert origin.head(bare) == refs
    assert dev_cluster.requests()["HEAD"] == 41
    # The handles that carried HEADs carry GETs again.
    assert sum(fetched.verified for fetched in origin.fetch(refs, HeapSink())) == 41
    with pytest.raises(ObjectNotFoundError, match="nosuch"):
        origin.head([*bare, ObjectRef(cluster=origin.uuid, provider="ais", bucket=bucket_name, name="nosuch")])


def test_listing_pages_follow_the_order_of_the_cluster(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str
) -> None:
    dev_cluster.generate(bucket_name, 25_000, 10, prefix="p/")
    pages = list(origin.list_pages(BucketName(name=bucket_name), "p/"))
    assert len(pages) > 1
    names = [entry.n for page in pages for entry in page]
    assert len(names) == 25_000
    assert names == [entry.name for entry in Client(dev_cluster.endpoint).bucket(bucket_name).list_all_objects("p/")]
    assert list(origin.list_pages(BucketName(name=bucket_name), "nothing/")) == []


def test_a_namespace_is_part_of_the_address(
    dev_cluster: DevCluster, origin: Origin, bucket_name: str, ref: Callable[..., ObjectRef]
) -> None:
    bucket = Client(dev_cluster.endpoint).bucket(bucket_name, namespace=Namespace(name="ns"))
    url = origin.url(ObjectRef(cluster="", provider="ais", namespace="@#ns", bucket=bucket_name, name="x y"))
    assert url == dev_cluster.endpoint + "/v1/objects/" + bucket_name + "/x%20y?provider=ais&namespace=%40%23ns"
    assert bucket.namespace.get_path() == "@#ns"
