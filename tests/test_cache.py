"""`Cache`: read-through, single flight, and what happens when something is wrong."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from aiscache import Cache
from aiscache.devserver import DevCluster
from aiscache.errors import (
    CacheClosedError,
    CacheDirectoryError,
    ChecksumMismatchError,
    ConfigError,
    ObjectChangedError,
    ObjectNotFoundError,
)
from aiscache.keys import ObjectRef
from aiscache.manifest import Draft, Listing, Manifest, ManifestStore, Source
from tests.store.objects import disk_usage


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="100MB") as cache:
        yield cache


def listing(cluster: DevCluster, bucket: str, tmp_path: Path) -> Manifest:
    sources = Listing(cluster.client().bucket(bucket))
    return ManifestStore(str(tmp_path / "listings")).load_or_build(sources.identity, sources.build)


def test_an_object_leaves_the_cluster_once(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    objects = {f"o{number}": os.urandom(1000 * number) for number in range(20)}
    dev_cluster.put_many(bucket_name, objects)
    refs = list(listing(dev_cluster, bucket_name, tmp_path))
    dev_cluster.reset_requests()
    for _ in range(3):
        assert {ref.name: bytes(view) for ref, view in zip(refs, cache.read_many(refs), strict=True)} == objects
        assert {ref.name: bytes(cache.read(ref)) for ref in refs} == objects
    assert dev_cluster.requests()["GET"] == len(objects)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.fetched_objects) == (5 * len(objects), len(objects), len(objects))
    assert stats.fetched_bytes == sum(map(len, objects.values()))
    assert stats.hit_ratio == pytest.approx(5 / 6)


def test_the_same_object_twice_in_one_call_is_fetched_once(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name, {"a": b"alpha", "b": b"beta"})
    a, b = listing(dev_cluster, bucket_name, tmp_path)
    dev_cluster.reset_requests()
    assert [bytes(view) for view in cache.read_many([a, b, a, a])] == [b"alpha", b"beta", b"alpha", b"alpha"]
    assert dev_cluster.requests()["GET"] == 2


def test_threads_that_want_the_same_objects_fetch_each_once(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    objects = {f"o{number:03}": os.urandom(5000) for number in range(100)}
    dev_cluster.put_many(bucket_name, objects)
    refs = list(listing(dev_cluster, bucket_name, tmp_path))
    dev_cluster.reset_requests()
    dev_cluster.set_delay(0.01)
    barrier, found = threading.Barrier(8), []

    def read(turn: int) -> None:
        mine = refs[turn * 10 :] + refs[: turn * 10]
        barrier.wait()
        found.append({ref.name: bytes(view) for ref, view in zip(mine, cache.read_many(mine), strict=True)})

    threads = [threading.Thread(target=read, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [objects] * 8
    assert dev_cluster.requests()["GET"] == len(objects)
    assert cache.stats().waits > 0


def _read_all(settings: bytes, refs: list[ObjectRef], endpoint: str, start: object, answers: object) -> None:
    import aistore.sdk

    from aiscache.origin import Origin

    Origin.from_client(aistore.sdk.Client(endpoint)).cluster_map()
    cache: Cache = pickle.loads(settings)
    start.wait()  # type: ignore[attr-defined]
    answers.put(sum(len(view) for view in cache.read_many(refs)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_want_the_same_objects_fetch_each_once(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path, method: str
) -> None:
    objects = {f"o{number:03}": os.urandom(20_000) for number in range(200)}
    dev_cluster.put_many(bucket_name, objects)
    refs = list(listing(dev_cluster, bucket_name, tmp_path))
    dev_cluster.reset_requests()
    dev_cluster.set_delay(0.005)
    context = multiprocessing.get_context(method)
    start, answers = context.Event(), context.Queue()
    arguments = (pickle.dumps(cache), refs, dev_cluster.endpoint, start, answers)
    processes = [context.Process(target=_read_all, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    assert [answers.get(timeout=60) for _ in processes] == [200 * 20_000] * 4
    for process in processes:
        process.join(30)
    assert dev_cluster.requests()["GET"] == len(objects)
    assert cache.stats().fetched_objects == len(objects)


def test_a_fetcher_that_is_killed_is_replaced_by_who_waits(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name, {"slow": os.urandom(100_000)})
    (ref,) = listing(dev_cluster, bucket_name, tmp_path)
    dev_cluster.fault(bucket_name, "slow", bytes_per_s=1000, count=1)
    dev_cluster.reset_requests()
    program = (
        "import pickle, sys, aistore.sdk; from aiscache.origin import Origin\n"
        "Origin.from_client(aistore.sdk.Client(sys.argv[1])).cluster_map()\n"
        "cache, ref = pickle.load(sys.stdin.buffer); cache.store(); print('ready', flush=True); cache.read(ref)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, dev_cluster.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        holder.stdin.write(pickle.dumps((cache, ref)))
        holder.stdin.close()
        assert holder.stdout.readline() == b"ready\n"
        while not dev_cluster.requests()["GET"]:  # until the holder's fetch, and so its flight, is under way
            pass
        reader = threading.Thread(target=cache.read, args=(ref,))
        reader.start()
        while not cache.stats().waits:
            pass
        holder.kill()
        reader.join(30)
    assert not reader.is_alive()
    assert dev_cluster.requests()["GET"] == 2
    assert cache.contains(ref)


def test_a_new_version_is_fetched_and_the_old_one_is_not_served_for_it(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name, {"a": b"first"})
    (first,) = listing(dev_cluster, bucket_name, tmp_path)
    view = cache.read(first)
    dev_cluster.put_many(bucket_name, {"a": b"second!"})
    (second,) = listing(dev_cluster, bucket_name, tmp_path)
    assert not cache.contains(second)
    assert bytes(cache.read(second)) == b"second!"
    assert not cache.contains(first)
    assert bytes(view) == b"first"


def test_an_object_that_changed_since_the_listing_is_an_error(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name, {"a": b"listed"})
    (ref,) = listing(dev_cluster, bucket_name, tmp_path)
    dev_cluster.put_many(bucket_name, {"a": b"newer"})
    with pytest.raises(ObjectChangedError, match=f"{bucket_name}/a"):
        cache.read(ref)
    assert not cache.contains(ref)


def test_an_object_that_is_gone_names_itself_and_what_else_was_asked_for_is_kept(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    dev_cluster.put_many(bucket_name, {"a": b"a", "gone": b"x", "z": b"z"})
    a, gone, z = listing(dev_cluster, bucket_name, tmp_path)
    dev_cluster.client().bucket(bucket_name).object("gone").delete()
    with pytest.raises(ObjectNotFoundError, match=f"ais://{bucket_name}/gone"):
        cache.read_many([a, gone, z])
    assert cache.contains(a)
    assert cache.contains(z)


def test_corrupt_bytes_are_fetched_again_and_never_kept(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path
) -> None:
    data = os.urandom(50_000)
    dev_cluster.put_many(bucket_name, {"once": data, "always": data})
    always, once = listing(dev_cluster, bucket_name, tmp_path)
    dev_cluster.fault(bucket_name, "once", flip_byte_at=100, count=1)
    dev_cluster.fault(bucket_name, "always", flip_byte_at=100)
    assert bytes(cache.read(once)) == data
    with pytest.raises(ChecksumMismatchError, match="always"):
        cache.read(always)
    assert not cache.contains(always)
    dev_cluster.clear_faults()
    assert bytes(cache.read(always)) == data


def test_an_object_larger_than_the_cache_and_an_empty_one_simply_work(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    objects = {"empty": b"", "large": os.urandom(3_000_000), "small": b"s"}
    dev_cluster.put_many(bucket_name, objects)
    refs = list(listing(dev_cluster, bucket_name, tmp_path))
    with Cache(tmp_path / "small", capacity="2MB") as cache:
        for _ in range(2):
            assert [bytes(view) for view in cache.read_many(refs)] == list(objects.values())
        assert [cache.contains(ref) for ref in refs] == [True, False, True]
        assert cache.stats().rejected == 2


def test_every_name_that_ais_accepts(dev_cluster: DevCluster, bucket_name: str, cache: Cache, tmp_path: Path) -> None:
    names = ["a/b/c.txt", "with space", "uni/ключ-日本.txt", "pct%20x%.txt", "q?x#y&z=1.txt", "plus+x"]
    names += ["tilde~quote'\"x", "semi;colon:at@x,eq=", "back\\slash", "x" * 1000]
    client = dev_cluster.client()
    bucket = client.bucket(bucket_name).create()
    for name in names:
        bucket.object(name).get_writer().put_content(name.encode())
    refs = list(listing(dev_cluster, bucket_name, tmp_path))
    assert sorted(ref.name for ref in refs) == sorted(names)
    for _ in range(2):
        assert [bytes(view).decode() for view in cache.read_many(refs)] == [ref.name for ref in refs]


def test_put_contains_evict_and_clear(cache: Cache) -> None:
    refs = [
        ObjectRef(cluster="c", provider="ais", bucket=bucket, name=name, size=3)
        for bucket in ("one", "two")
        for name in ("a/1", "a/2", "b/1")
    ]
    for ref in refs:
        assert cache.put(ref, b"abc")
    view = cache.read(refs[0])
    assert cache.evict("one", "a/").skipped == 2  # a view of the segment lives
    del view
    assert cache.evict("one", "a/").objects == 2
    assert [cache.contains(ref) for ref in refs] == [False, False, True, True, True, True]
    assert cache.evict("two").objects == 3
    assert cache.clear().objects == 1
    assert not any(map(cache.contains, refs))


def test_evicting_a_bucket_spares_one_of_the_same_name_elsewhere(cache: Cache, dev_cluster: DevCluster) -> None:
    refs = [ObjectRef(cluster="c", provider=provider, bucket="one", name="n", size=3) for provider in ("ais", "aws")]
    for ref in refs:
        cache.put(ref, b"abc")
    assert cache.evict(dev_cluster.client().bucket("one", provider="aws")).objects == 1
    assert [cache.contains(ref) for ref in refs] == [True, False]


def test_a_dry_eviction_says_what_an_eviction_does(cache: Cache) -> None:
    refs = [ObjectRef(cluster="c", provider="ais", bucket="b", name=f"{n % 2}/{n}", size=100_000) for n in range(20)]
    for ref in refs:
        cache.put(ref, bytes(100_000))
    before = cache.stats()
    told = cache.evict("b", "1/", dry_run=True)
    assert (told.objects, told.skipped) == (10, 0)
    assert all(map(cache.contains, refs))
    assert cache.stats() == before
    did = cache.evict("b", "1/")
    assert did.objects == told.objects
    assert told.freed_bytes * 0.9 < did.freed_bytes <= told.freed_bytes
    assert cache.evict("b", dry_run=True).freed_bytes == cache.evict("b").freed_bytes


def test_what_was_used_lately_can_be_spared(cache: Cache, tmp_path: Path) -> None:
    ref = ObjectRef(cluster="c", provider="ais", bucket="b", name="n", size=3)
    cache.put(ref, b"abc")
    assert cache.evict(unused_for_s=60).objects == 0
    (segment,) = tmp_path.rglob("*.seg")
    os.utime(segment, (1, time.time() - 61))
    assert cache.verify() == []  # is no use of it
    assert cache.evict(unused_for_s=60).objects == 1


def test_put_of_another_size_than_the_ref_has_is_refused(cache: Cache) -> None:
    ref = ObjectRef(cluster="c", provider="ais", bucket="b", name="n", size=3)
    with pytest.raises(ConfigError, match="4 bytes as ais://b/n, which has 3"):
        cache.put(ref, b"four")


def test_a_miss_without_a_known_cluster_says_what_to_do(cache: Cache) -> None:
    ref = ObjectRef(cluster="nowhere", provider="ais", bucket="b", name="n")
    with pytest.raises(ConfigError, match=r"'nowhere'.*from_client"):
        cache.read(ref)


def test_a_closed_handle_says_so_and_views_stay(cache: Cache, tmp_path: Path) -> None:
    ref = ObjectRef(cluster="c", provider="ais", bucket="b", name="n", size=3)
    cache.put(ref, b"abc")
    view = cache.read(ref)
    cache.close()
    cache.close()
    with pytest.raises(CacheClosedError, match="after close"):
        cache.read(ref)
    assert bytes(view) == b"abc"
    with Cache(tmp_path / "cache") as again:
        assert bytes(again.read(ref)) == b"abc"


def test_two_handles_share_a_store_and_close_on_their_own(cache: Cache) -> None:
    ref = ObjectRef(cluster="c", provider="ais", bucket="b", name="n", size=3)
    with pickle.loads(pickle.dumps(cache)) as other:
        cache.put(ref, b"abc")
        assert bytes(other.read(ref)) == b"abc"
    assert bytes(cache.read(ref)) == b"abc"


@pytest.mark.parametrize("capacity", ["", "lots", "-1", 0, "10XB", "5 %"])
def test_a_bad_capacity_names_itself(tmp_path: Path, capacity: object) -> None:
    with pytest.raises(ConfigError, match="capacity="):
        Cache(tmp_path / "cache", capacity=capacity)  # type: ignore[arg-type]


def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CacheDirectoryError, match="not a cache of aiscache"):
        Cache(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_an_unusable_default_cache_is_one_warning_and_direct_reads(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiscache.store.tiers.SHARED_MEMORY", tmp_path / "missing")
    monkeypatch.delenv("AISCACHE_DIR", raising=False)
    dev_cluster.put_many(bucket_name, {"a": b"alpha"})
    (ref,) = listing(dev_cluster, bucket_name, tmp_path)
    with pytest.warns(RuntimeWarning, match="reading without a cache"):
        cache = Cache()
    assert bytes(cache.read(ref)) == b"alpha"
    assert cache.stats().hits == 0
    with pytest.raises(CacheDirectoryError):
        cache.clear()


def test_a_damaged_object_is_dropped_and_fetched_again(
    dev_cluster: DevCluster, bucket_name: str, tmp_path: Path
) -> None:
    data = os.urandom(10_000)
    dev_cluster.put_many(bucket_name, {"a": data})
    (ref,) = listing(dev_cluster, bucket_name, tmp_path)
    path = tmp_path / "cache"
    with Cache(path, capacity="10MB") as cache:
        cache.read(ref)
    (segment,) = (path / "segments").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(data[:64]) + 5000] ^= 1
    segment.write_bytes(content)
    with Cache(path, verify="read") as cache:
        assert bytes(cache.read(ref)) == data
        assert cache.stats(scope="process").checksum_failures == 1
        assert cache.verify() == []


def test_stats_of_an_unknown_scope_are_refused(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="scope='mine'"):
        cache.stats(scope="mine")


@pytest.mark.parametrize("held", [False, True])
def test_a_listing_beside_a_full_cache_stays_within_the_capacity(tmp_path: Path, held: bool) -> None:
    def build() -> Draft:
        made = Draft()
        made.begin(Source("c", "http://h", "ais", "", "b"))
        count = 20_000
        made.extend(
            [f"{n:050}" for n in range(count)], sizes=[1] * count, checksums=[""] * count, versions=["1"] * count
        )
        return made

    capacity, path = 5_000_000, tmp_path / "cache"
    with Cache(path, capacity=capacity) as cache:
        refs = [ObjectRef(cluster="c", provider="ais", bucket="b", name=f"{n}") for n in range(60)]
        views = [cache.read(ref) for ref in refs if cache.put(ref, bytes(100_000))] if held else []
        if not held:
            assert all(cache.put(ref, bytes(100_000)) for ref in refs)
        assert disk_usage(path) > 0.8 * capacity
        manifests = ManifestStore(str(path / "manifests"), room=cache.room_for)
        with pytest.warns(UserWarning, match="the cache is full") if held else nullcontext():
            manifest = manifests.load_or_build("1" * 32, build)
        assert len(manifest) == 20_000
        assert (manifest.path == "") is held
        assert disk_usage(path) <= capacity
        assert all(bytes(view) == bytes(100_000) for view in views)
