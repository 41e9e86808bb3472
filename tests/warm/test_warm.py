"""`Cache.warm`: what is brought into the cache, with which requests, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from aistore.sdk import Client
from aistore.sdk.retry_config import RetryConfig
from tenacity import Retrying, stop_after_attempt
from urllib3.util.retry import Retry

from aiscache import AISIterDataset, AISMapDataset, Cache
from aiscache.devserver import DevCluster
from aiscache.errors import CacheFullError, ConfigError
from aiscache.warm import Failure, Warmed
from tests.store.objects import disk_usage

COUNT, SIZE = 200, 5000


@pytest.fixture
def bucket(dev_cluster: DevCluster, bucket_name: str) -> str:
    dev_cluster.generate(bucket_name, COUNT, SIZE)
    return bucket_name


def warm(cluster: DevCluster, bucket: str, path: Path, *, capacity: int = 50_000_000, **options: object) -> Warmed:
    with Cache(path, capacity=capacity) as cache:
        return cache.warm(cluster.client().bucket(bucket), processes=2, **options)  # type: ignore[arg-type]


def dataset(cluster: DevCluster, bucket: str, path: Path) -> AISMapDataset:
    return AISMapDataset(cluster.client().bucket(bucket), cache=Cache(path))


def gets(cluster: DevCluster) -> int:
    return cluster.requests()["GET"]


def test_a_dataset_of_the_same_objects_then_reads_without_a_request(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    warmed = warm(dev_cluster, bucket, tmp_path)
    assert (warmed.complete, warmed.fetched_objects, warmed.fetched_bytes) == (True, COUNT, COUNT * SIZE)
    assert gets(dev_cluster) == COUNT
    data = dataset(dev_cluster, bucket, tmp_path)
    assert [len(content) for _, content in data] == [SIZE] * COUNT
    assert gets(dev_cluster) == COUNT
    assert data.cache is not None
    data.cache.close()


def test_a_second_run_asks_for_the_listing_alone_and_starts_no_process(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(dev_cluster, bucket, tmp_path)
    dev_cluster.reset_requests()
    monkeypatch.setattr("aiscache.prefetch.prefetcher.PoolProcess", None)  # calling it would be an error
    again = warm(dev_cluster, bucket, tmp_path)
    assert (again.need.present_objects, again.need.missing_objects, again.fetched_objects) == (COUNT, 0, 0)
    assert again.complete
    requests = dev_cluster.requests()
    assert {kind for kind, count in requests.items() if count} == {"LIST", "BYTES"}
    assert requests["LIST"] == 1


def test_it_goes_by_the_listing_and_a_limit_takes_its_first(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    assert warm(dev_cluster, bucket, tmp_path, limit=20).fetched_objects == 20
    with Cache(tmp_path) as cache:
        here = [cache.contains(ref) for ref in dataset(dev_cluster, bucket, tmp_path).manifest]
    assert here == [True] * 20 + [False] * (COUNT - 20)


def test_a_rank_gets_what_a_dataset_of_that_rank_reads(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    warmed = warm(dev_cluster, bucket, tmp_path, rank=1, world_size=3)
    assert warmed.fetched_objects == len(range(1, COUNT, 3))
    dev_cluster.reset_requests()
    source = dev_cluster.client().bucket(bucket)
    with Cache(tmp_path) as cache:
        assert sum(1 for _ in AISIterDataset(source, cache=cache, rank=1, world_size=3)) == warmed.fetched_objects
        assert gets(dev_cluster) == 0
        assert sum(1 for _ in AISIterDataset(source, cache=cache, rank=0, world_size=3)) == gets(dev_cluster)


def test_what_cannot_fit_is_refused_with_figures_before_anything_is_fetched(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(CacheFullError, match=r"200 missing objects need 1\.1 MB") as caught:
        warm(dev_cluster, bucket, tmp_path, capacity=600_000)
    need = caught.value.need  # type: ignore[attr-defined]
    assert need.needed_bytes > need.free_bytes + need.evictable_bytes
    assert gets(dev_cluster) == 0


def test_partial_fetches_what_fits_and_nothing_else(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    warmed = warm(dev_cluster, bucket, tmp_path, capacity=600_000, partial=True)
    assert not warmed.complete
    assert 0 < warmed.fetched_objects < COUNT
    assert warmed.fetched_objects + warmed.unfit_objects == COUNT
    assert gets(dev_cluster) == warmed.fetched_objects
    assert disk_usage(tmp_path) <= 600_000


def test_a_dry_run_says_all_and_fetches_nothing(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    warm(dev_cluster, bucket, tmp_path, limit=50)
    dev_cluster.reset_requests()
    told = warm(dev_cluster, bucket, tmp_path, dry_run=True)
    assert (told.need.present_objects, told.need.missing_objects, told.fetched_objects) == (50, COUNT - 50, 0)
    assert told.need.fits
    assert gets(dev_cluster) == 0
    assert not warm(dev_cluster, bucket, tmp_path, capacity=600_000, dry_run=True).need.fits


def test_what_was_estimated_to_fit_does(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    need = warm(dev_cluster, bucket, tmp_path / "first", dry_run=True).need
    used = 50_000_000 - need.free_bytes
    warmed = warm(dev_cluster, bucket, tmp_path / "second", capacity=need.needed_bytes + used)
    assert warmed.complete


def test_room_is_made_of_what_nobody_uses(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.generate(bucket + "-old", COUNT, SIZE)
    capacity = 1_500_000
    assert warm(dev_cluster, bucket + "-old", tmp_path, capacity=capacity).complete
    warmed = warm(dev_cluster, bucket, tmp_path, capacity=capacity)
    assert warmed.need.needed_bytes > warmed.need.free_bytes
    assert warmed.need.evictable_bytes > 0
    assert warmed.complete


def test_room_is_not_made_of_what_an_open_dataset_names(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.generate(bucket + "-used", COUNT, SIZE)
    assert warm(dev_cluster, bucket + "-used", tmp_path, capacity=1_500_000).complete
    used = dataset(dev_cluster, bucket + "-used", tmp_path)
    with pytest.raises(CacheFullError, match="0 B can be evicted"):
        warm(dev_cluster, bucket, tmp_path, capacity=1_500_000)
    assert used.cache is not None
    assert all(used.cache.contains(ref) for ref in used.manifest)
    used.cache.close()


def test_an_object_that_fails_is_named_and_the_others_arrive(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    dev_cluster.fault(bucket, "00000007", flip_byte_at=100)
    warmed = warm(dev_cluster, bucket, tmp_path)
    (failure,) = warmed.failures
    assert failure.url == f"ais://{bucket}/00000007"
    assert "checksum" in failure.error
    assert (warmed.fetched_objects, warmed.complete) == (COUNT - 1, False)
    dev_cluster.clear_faults()
    assert warm(dev_cluster, bucket, tmp_path).fetched_objects == 1


def test_names_that_the_cluster_does_not_have_are_failures_and_the_others_arrive(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    group = dev_cluster.client().bucket(bucket).objects(obj_names=["00000003", "gone", "00000001"])
    with Cache(tmp_path, capacity="50MB") as cache:
        warmed = cache.warm(group)
    assert warmed.failures == (Failure(f"ais://{bucket}/gone", "it is not on the cluster"),)
    assert (warmed.need.objects, warmed.fetched_objects, warmed.complete) == (2, 2, False)


def test_a_cluster_that_gives_nothing_is_given_up(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.fault(bucket, status=503, method="GET")
    patience = RetryConfig(http_retry=Retry(total=0), network_retry=Retrying(stop=stop_after_attempt(1)))
    client = Client(dev_cluster.endpoint, retry_config=patience)
    with Cache(tmp_path, capacity="50MB") as cache:
        warmed = cache.warm(client.bucket(bucket), processes=1, connections=4)
    assert len(warmed.failures) == COUNT
    assert "503" in warmed.failures[0].error
    assert "not tried" in warmed.failures[-1].error
    assert gets(dev_cluster) < 2 * COUNT  # of target and proxy: many were never asked for


def test_overlapping_sources_are_fetched_once(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    source = dev_cluster.client().bucket(bucket)
    with Cache(tmp_path, capacity="50MB") as cache:
        warmed = cache.warm([source], {source: ["0000000", "000000", "00000001"]})
    assert (warmed.need.objects, warmed.fetched_objects, gets(dev_cluster)) == (100, 100, 100)


def test_through_an_etl_sizes_are_not_known_and_a_full_cache_ends_it(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    dev_cluster.add_etl("twice", "double")
    warmed = warm(dev_cluster, bucket, tmp_path / "a", etl_name="twice", limit=30)
    assert (warmed.complete, warmed.fetched_bytes) == (True, 30 * 2 * SIZE)
    dev_cluster.reset_requests()
    warmed = warm(dev_cluster, bucket, tmp_path / "b", etl_name="twice", capacity=600_000, partial=True, connections=4)
    assert warmed.unfit_objects == COUNT - warmed.fetched_objects > 100
    assert gets(dev_cluster) < warmed.fetched_objects + 32  # those on their way when the first had no room


def test_two_processes_share_the_work(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.set_delay(0.005)
    code = """
import sys
from aistore.sdk import Client
from aiscache import Cache
with Cache(sys.argv[3], capacity="50MB") as cache:
    warmed = cache.warm(Client(sys.argv[1]).bucket(sys.argv[2]), processes=1)
assert warmed.complete
print(warmed.fetched_objects, "torch" in sys.modules)
"""
    arguments = [sys.executable, "-W", "error", "-c", code, dev_cluster.endpoint, bucket, str(tmp_path)]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(int(count) for count, _ in told) == COUNT == gets(dev_cluster)
    assert [torch for _, torch in told] == ["False", "False"]


@pytest.mark.parametrize(
    ("option", "value"), [("processes", 0), ("connections", -1), ("limit", 0), ("rank", 1), ("world_size", 0)]
)
def test_bad_values_are_named(option: str, value: int, dev_cluster: DevCluster, tmp_path: Path) -> None:
    with Cache(tmp_path) as cache, pytest.raises(ConfigError, match=option):
        cache.warm(dev_cluster.client().bucket("any"), **{option: value})  # type: ignore[arg-type]
