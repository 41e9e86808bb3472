"""A cluster whose targets stop, leave, lie and refuse while it is read. Promises 1 and 3."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from aiscache.devserver import DevCluster
from aiscache.errors import ChecksumMismatchError, ObjectChangedError, ObjectNotFoundError, OriginError
from aiscache.keys import ObjectRef
from aiscache.origin import BucketName, HeapSink, Origin

MakeOrigin = Callable[..., Origin]


@pytest.fixture
def cluster() -> Iterator[DevCluster]:
    """A cluster of its own, as these tests break it."""
    with DevCluster(targets=3) as cluster:
        yield cluster


def listed(origin: Origin, bucket: str = "b") -> list[ObjectRef]:
    return [
        ObjectRef(
            cluster=origin.uuid, provider="ais", bucket=bucket, name=entry.n, size=entry.s, checksum=entry.cs,
            version=entry.v,
        )
        for page in origin.list_pages(BucketName(name=bucket))
        for entry in page
    ]  # fmt: skip


def test_a_target_in_maintenance_hands_over(cluster: DevCluster, origin_at: MakeOrigin) -> None:
    cluster.put_many("b", {f"o{n}": b"old" * n for n in range(1, 60)})
    origin = origin_at(cluster.endpoint)
    assert all(fetched.verified for fetched in origin.fetch(listed(origin), HeapSink()))
    cluster.set_maintenance(1, True)
    cluster.put_many("b", {f"o{n}": b"new" * n for n in range(1, 60)})
    # The old owner still has the old bytes and would serve them to whoever asks it directly (recorded: 251, 252).
    for fetched in origin.fetch(listed(origin), HeapSink()):
        assert bytes(fetched.result())[:3] == b"new"
    cluster.reset_requests()
    assert all(fetched.verified for fetched in origin.fetch(listed(origin), HeapSink()))
    assert cluster.requests()["REDIRECT"] == 0  # the new map is known


def test_a_target_that_leaves_takes_its_objects_with_it(cluster: DevCluster, origin_at: MakeOrigin) -> None:
    cluster.put_many("b", {f"o{n}": b"x" * n for n in range(1, 60)})
    origin = origin_at(cluster.endpoint)
    refs = listed(origin)
    lost = {ref.name for ref in refs if cluster.owner("b", ref.name) == 2}
    cluster.remove_target(2)
    cluster.stop_target(2)
    missing = {fetched.ref.name for fetched in origin.fetch(refs, HeapSink()) if fetched.error}
    assert missing == lost
    cluster.start_target(2)
    assert not [fetched.error for fetched in origin.fetch(refs, HeapSink()) if fetched.error]


def test_a_stopped_target_costs_its_own_objects_only(cluster: DevCluster, origin_at: MakeOrigin) -> None:
    cluster.put_many("b", {f"o{n}": b"x" * n for n in range(1, 40)})
    origin = origin_at(cluster.endpoint)
    refs = listed(origin)
    cluster.stop_target(0)
    for fetched in origin.fetch(refs, HeapSink()):
        assert (fetched.error is not None) == (cluster.owner("b", fetched.ref.name) == 0)
        assert fetched.attempts <= 3
    cluster.start_target(0)
    assert not [fetched.error for fetched in origin.fetch(refs, HeapSink()) if fetched.error]


def test_an_object_overwritten_after_the_listing(cluster: DevCluster, origin_at: MakeOrigin) -> None:
    cluster.put_many("b", {"same": b"1234", "other": b"1234"})
    origin = origin_at(cluster.endpoint)
    refs = listed(origin)
    cluster.put_many("b", {"same": b"1234", "other": b"5678"})
    results = {fetched.ref.name: fetched for fetched in origin.fetch(refs, HeapSink())}
    assert results["same"].verified
    assert isinstance(results["other"].error, ObjectChangedError)


def test_a_bad_disk_is_told_from_a_bad_day(cluster: DevCluster, origin_at: MakeOrigin) -> None:
    cluster.put_many("b", {"once": b"1234" * 99, "always": b"1234" * 99})
    cluster.fault("b", "once", flip_byte_at=7, count=1)
    cluster.fault("b", "always", flip_byte_at=-1)
    origin = origin_at(cluster.endpoint)
    results = {fetched.ref.name: fetched for fetched in origin.fetch(listed(origin), HeapSink())}
    assert bytes(results["once"].result()) == b"1234" * 99
    assert isinstance(results["always"].error, ChecksumMismatchError)


def test_with_a_token(origin_at: MakeOrigin) -> None:
    with DevCluster(targets=1, token="s3cret") as cluster:
        cluster.put_many("b", {"x": b"1"})
        good, bad = Origin.from_client(cluster.client()), origin_at(cluster.endpoint, token="guess")
        assert good.fetch_one(listed(good)[0], HeapSink()).verified
        with pytest.raises(OriginError, match="AIS_AUTHN_TOKEN"):
            _ = bad.uuid


@pytest.mark.parametrize("seed", range(3))
def test_random_trouble_gives_the_right_bytes_or_an_error(
    cluster: DevCluster, origin_at: MakeOrigin, seed: int
) -> None:
    chance = random.Random(seed)
    bodies = {f"o{n:03}": chance.randbytes(chance.choice([0, 10, 5000, 100_000])) for n in range(150)}
    cluster.put_many("b", bodies)
    origin = origin_at(cluster.endpoint)
    refs = [*listed(origin), ObjectRef(cluster=origin.uuid, provider="ais", bucket="b", name="missing")]
    for _ in range(60):
        trouble: dict[str, object] = chance.choice(
            [
                {"status": 503},
                {"status": 404},
                {"reset_at": 5},
                {"truncate_at": 7},
                {"flip_byte_at": 3},
                {"delay_s": 0.05},
            ]
        )
        cluster.fault("b", f"o{chance.randrange(15):02}*", count=chance.randrange(1, 4), **trouble)
    good = 0
    for fetched in origin.fetch(refs, HeapSink(), in_flight=chance.choice([1, 5, 32])):
        if fetched.error is None:
            assert bytes(fetched.result()) == bodies[fetched.ref.name]
            good += 1
        else:
            assert isinstance(fetched.error, OriginError)
    assert good >= 60
    cluster.clear_faults()
    errors = [fetched.error for fetched in origin.fetch(refs, HeapSink()) if fetched.error]
    assert [type(error) for error in errors] == [ObjectNotFoundError]


def test_ctrl_c_ends_a_fetch_and_leaves_the_origin_usable(cluster: DevCluster) -> None:
    cluster.put_many("b", {f"o{n}": b"x" * 1000 for n in range(20)})
    program = """if True:
        import sys
        from aiscache.keys import ObjectRef
        from aiscache.origin import HeapSink, Origin, OriginSettings
        origin = Origin.of(OriginSettings(endpoint=sys.argv[1]))
        refs = [ObjectRef(cluster=origin.uuid, provider="ais", bucket="b", name=f"o{n}") for n in range(20)]
        try:
            print("ready", flush=True)
            list(origin.fetch(refs, HeapSink()))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        sys.stdin.readline()
        print(sum(fetched.verified for fetched in origin.fetch(refs, HeapSink())), flush=True)
        """
    cluster.set_delay(30)
    with subprocess.Popen(
        [sys.executable, "-c", program, cluster.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        cluster.set_delay(0)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "20\n"
