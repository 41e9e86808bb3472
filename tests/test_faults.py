"""What the cluster does wrong, at each stage, read through a dataset and by the prefetcher's pool.

Whatever happens, a reader gets the right bytes or an error that names object and cluster, within the time that the
client allows; nothing wrong is kept, and when the trouble is over the right bytes come.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aistore.sdk import Client
from aistore.sdk.retry_config import RetryConfig
from tenacity import Retrying, stop_after_attempt, wait_fixed
from urllib3 import Retry

from aiscache import AISBaseMapDataset, AISMapDataset, Cache, DataLoader
from aiscache.devserver import DevCluster
from aiscache.errors import (
    BucketNotFoundError,
    ChecksumMismatchError,
    ManifestError,
    ObjectChangedError,
    ObjectNotFoundError,
    OriginError,
    OriginTimeoutError,
    UnreachableError,
)
from aiscache.origin import Origin, OriginSettings
from tests.prefetch.processes import wait_until

SIZE = 20_000
NOWHERE = "http://127.0.0.1:9"  # the port "discard": nobody listens


@dataclass(frozen=True)
class Trouble:
    """A fault, and the error that comes of it if it lasts. `redirects`: the targets say 404, so the proxy is asked."""

    name: str
    fault: dict[str, Any]
    error: type[OriginError]
    redirects: bool = False

    def begin(self, cluster: DevCluster, bucket: str, name: str, *, count: int | None) -> None:
        where = {"target": -1} if self.redirects else {"method": "GET"}
        if self.redirects:
            cluster.fault(bucket, name, method="GET", status=404, count=count)
        cluster.fault(bucket, name, count=count, **where, **self.fault)


OF_OBJECTS = [
    Trouble("false-404", {"status": 404}, ObjectNotFoundError),
    *(Trouble(f"status-{status}", {"status": status}, OriginError) for status in (429, 500, 503)),
    *(
        Trouble(f"{kind}-at-{stage}", {f"{kind}_at": at}, error)
        for kind, error in (("reset", UnreachableError), ("truncate", UnreachableError), ("stall", OriginTimeoutError))
        for stage, at in (("first-byte", 0), ("middle", SIZE // 2), ("end", SIZE - 1))
    ),
    *(
        Trouble(f"flip-at-{stage}", {"flip_byte_at": at}, ChecksumMismatchError)
        for stage, at in (("first-byte", 0), ("middle", SIZE // 2), ("end", -1))
    ),
    Trouble("length-too-short", {"wrong_length": SIZE - 5}, ObjectChangedError),
    Trouble("length-too-long", {"wrong_length": SIZE + 5}, ObjectChangedError),
    Trouble("length-zero", {"wrong_length": 0}, ObjectChangedError),
    Trouble("no-answer", {"delay_s": 30.0}, OriginTimeoutError),
    Trouble("drip", {"bytes_per_s": 50}, OriginTimeoutError),
    Trouble("redirect-to-nowhere", {"redirect_to": NOWHERE}, UnreachableError, redirects=True),
    Trouble("redirect-of-the-target", {"redirect_to": NOWHERE}, UnreachableError),
]
TAKE_TIME = ("stall-at-first-byte", "stall-at-middle", "stall-at-end", "drip", "no-answer")
OF_LISTINGS = [
    Trouble("404", {"status": 404}, OriginError),
    *(Trouble(f"status-{status}", {"status": status}, OriginError) for status in (429, 500, 503)),
    *(
        Trouble(f"{kind}-at-{stage}", {f"{kind}_at": at}, error)
        for kind, error in (("reset", OriginError), ("truncate", OriginError), ("stall", OriginTimeoutError))
        for stage, at in (("first-byte", 0), ("middle", 150))
    ),
    Trouble("length-too-short", {"wrong_length": 100}, OriginError),
    Trouble("length-too-long", {"wrong_length": 100_000}, OriginError),
    Trouble("no-answer", {"delay_s": 30.0}, OriginTimeoutError),
    Trouble("drip", {"bytes_per_s": 20}, OriginTimeoutError),
    Trouble("redirect-to-nowhere", {"redirect_to": NOWHERE}, UnreachableError),
]


def hasty(cluster: DevCluster) -> Client:
    """Return a client that tries twice and waits 0.3 s."""
    policy = RetryConfig(
        http_retry=Retry(total=1, backoff_factor=0.02, status_forcelist=[429, 500, 502, 503, 504]),
        network_retry=Retrying(stop=stop_after_attempt(2), wait=wait_fixed(0.02)),
    )
    return Client(cluster.endpoint, timeout=(0.3, 0.3), retry_config=policy)


def allowed_s(client: Client, size: int = SIZE) -> float:
    """Return how long one object may take by the client's timeouts and retries, and a second for a busy machine."""
    settings = OriginSettings.from_client(client)
    return settings.retry.budget_s(settings.attempt_s) + 2 * size / 4096 + 1


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="20MB") as cache:
        yield cache
    Origin.close_all()


def each(troubles: list[Trouble]) -> Any:
    """Return a test per trouble; those that take seconds and differ little from others are not in the default run."""
    slow = dict.fromkeys(("stall-at-first-byte", "stall-at-end", "no-answer"), pytest.mark.slow)
    return pytest.mark.parametrize(
        "trouble", [pytest.param(t, id=t.name, marks=slow.get(t.name, ())) for t in troubles]
    )


@each(OF_OBJECTS)
def test_an_object_arrives_or_its_error_names_it(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, trouble: Trouble
) -> None:
    made = dev_cluster.generate(bucket_name, 4, SIZE)
    client = hasty(dev_cluster)
    dataset = AISMapDataset(client.bucket(bucket_name), cache=cache)
    once, always, *others = made
    trouble.begin(dev_cluster, bucket_name, once, count=1)
    trouble.begin(dev_cluster, bucket_name, always, count=None)
    assert dataset[0] == (once, made.content(once)), "trouble that passes is not seen"
    began = time.monotonic()
    with pytest.raises(trouble.error) as caught:
        dataset.read_many(range(4))
    assert time.monotonic() - began < allowed_s(client)
    assert f"ais://{bucket_name}/{always}" in str(caught.value)
    assert dev_cluster.endpoint in str(caught.value)
    held = [cache.contains(ref) for ref in dataset.manifest]
    assert held == [True, False, True, True], "the others are kept, what did not arrive is not"
    assert cache.verify() == []
    dev_cluster.clear_faults()
    assert list(dataset) == [(name, made.content(name)) for name in made]
    assert cache.verify() == []
    assert others


class Outcomes(AISBaseMapDataset):
    """Samples are (name, bytes), or (name, error)."""

    def __getitem__(self, index: int) -> tuple[str, Any]:
        try:
            return self.manifest.name(index), bytes(self.read(index))
        except OriginError as error:
            return self.manifest.name(index), error


@pytest.mark.parametrize(
    "troubles",
    [
        pytest.param([trouble for trouble in OF_OBJECTS if trouble.name not in TAKE_TIME], id="quick"),
        pytest.param(OF_OBJECTS, id="all", marks=pytest.mark.slow),
    ],
)
def test_the_pool_keeps_what_is_right_and_nothing_else(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, troubles: list[Trouble]
) -> None:
    """All troubles at once, each for an object of its own, among many good ones."""
    made = dev_cluster.generate(bucket_name, 300, SIZE)
    client = hasty(dev_cluster)
    dataset = Outcomes(client.bucket(bucket_name), cache=cache)
    once = dict(zip(made[50 : 50 + len(troubles)], troubles, strict=True))
    always = dict(zip(made[100 : 100 + len(troubles)], troubles, strict=True))
    for names, count in ((once, 1), (always, None)):
        for name, trouble in names.items():
            trouble.begin(dev_cluster, bucket_name, name, count=count)
    dev_cluster.set_delay(0.005)
    loader = DataLoader(dataset, batch_size=None, prefetch_processes=2)
    seen: dict[str, Any] = {}
    longest_s = 0.0
    began = time.monotonic()
    for name, outcome in loader:
        longest_s = max(longest_s, time.monotonic() - began)
        seen[name] = outcome
        if len(seen) == 20:
            wait_until(lambda: loader.prefetcher.stats().failed > 0)
        began = time.monotonic()
    did = loader.prefetcher.stats()
    loader.prefetcher.close()
    assert longest_s < allowed_s(client)
    assert did.failed > 0
    assert did.objects > 200
    assert did.deaths == 0
    for name in made:
        if name in always:
            assert isinstance(seen[name], always[name].error), name
            assert f"ais://{bucket_name}/{name}" in str(seen[name])
        else:
            assert seen[name] == made.content(name), name
    assert [cache.contains(ref) for ref in dataset.manifest] == [name not in always for name in made]
    assert cache.verify() == []
    dev_cluster.clear_faults()
    assert [dataset[index] for index in range(300)] == [(name, made.content(name)) for name in made]


@each(OF_LISTINGS)
def test_a_listing_is_whole_or_an_error(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, trouble: Trouble
) -> None:
    made = dev_cluster.generate(bucket_name, 10, 100)
    client = hasty(dev_cluster)
    dev_cluster.fault(bucket_name, method="LIST", **trouble.fault)
    began = time.monotonic()
    with pytest.raises(trouble.error) as caught:
        AISMapDataset(client.bucket(bucket_name), cache=cache)
    assert time.monotonic() - began < allowed_s(client)
    assert f"ais://{bucket_name}" in str(caught.value)
    assert dev_cluster.endpoint in str(caught.value)
    assert not isinstance(caught.value, BucketNotFoundError)
    dev_cluster.clear_faults()
    dev_cluster.fault(bucket_name, method="LIST", count=1, **trouble.fault)
    if trouble.name == "404":
        dev_cluster.clear_faults()  # the proxy's word on its own buckets is final
    dataset = AISMapDataset(client.bucket(bucket_name), cache=cache)
    assert list(dataset) == [(name, made.content(name)) for name in made]


@pytest.mark.filterwarnings("ignore:the listing of .* has . objects, it had:UserWarning")
def test_a_flipped_byte_in_a_listing_never_becomes_wrong_bytes(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache
) -> None:
    """A listing has no checksum: an object that it misnames or misdescribes is then not found, or another version."""
    bodies = {f"o{number}": bytes([number]) * 50 for number in range(3)}
    dev_cluster.put_many(bucket_name, bodies)
    bucket = hasty(dev_cluster).bucket(bucket_name)
    good = failed = 0
    for at in range(0, 330, 3):
        dev_cluster.fault(bucket_name, method="LIST", flip_byte_at=at, count=1)
        try:
            dataset = AISMapDataset(bucket, cache=cache)
            samples = [dataset[index] for index in range(len(dataset))]
        except OriginError:
            failed += 1
        else:
            good += 1
            assert all(bodies[name] == content for name, content in samples)
        dev_cluster.clear_faults()
    assert good
    assert failed
    assert list(AISMapDataset(bucket, cache=cache)) == list(bodies.items())
    assert cache.verify() == []


@pytest.mark.parametrize("dropped", [0.25, 7.0])
def test_a_shorter_listing_is_told_with_both_counts_or_stops(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, dropped: float
) -> None:
    dev_cluster.generate(bucket_name, 40, 100)
    bucket = hasty(dev_cluster).bucket(bucket_name)
    assert len(AISMapDataset(bucket, cache=cache)) == 40
    dev_cluster.fault(bucket_name, list_drop=dropped)
    left = 40 - (10 if dropped < 1 else 7)
    with pytest.raises(ManifestError, match=f"{left} objects, it had 40 before") as caught:
        AISMapDataset(bucket, cache=cache, on_shrink="error")
    assert (caught.value.before, caught.value.now) == (40, left)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match=rf"ais://{bucket_name} has {left} objects, it had 40 before"):
        assert len(AISMapDataset(bucket, cache=cache)) == left
    dev_cluster.clear_faults()
    assert len(AISMapDataset(bucket, cache=cache, on_shrink="error")) == 40


@pytest.mark.parametrize("reader", ["dataset", "pool"])
def test_a_target_that_leaves_and_comes_back(bucket_name: str, cache: Cache, reader: str) -> None:
    with DevCluster(3) as cluster:
        made = cluster.generate(bucket_name, 60, SIZE)
        dataset = Outcomes(hasty(cluster).bucket(bucket_name), cache=cache)
        order: Any = dataset
        if reader == "pool":
            order = DataLoader(dataset, batch_size=None, prefetch_processes=1)
        cluster.stop_target(1)
        gone = {name for name in made if cluster.owner(bucket_name, name) == 1}
        for name, outcome in order:
            if name in gone:
                assert isinstance(outcome, UnreachableError)
                assert f"ais://{bucket_name}/{name}" in str(outcome)
            else:
                assert outcome == made.content(name)
        assert {ref.name for ref in dataset.manifest if not cache.contains(ref)} == gone
        cluster.start_target(1)
        assert dict(order) == {name: made.content(name) for name in made}
        assert cache.verify() == []
        if reader == "pool":
            order.prefetcher.close()


@pytest.mark.parametrize("how", ["in one piece", "broken off, and tried again"])
def test_an_object_that_is_overwritten_while_it_is_read(
    dev_cluster: DevCluster, bucket_name: str, cache: Cache, how: str
) -> None:
    """Both versions are right for somebody; for this dataset it is the one that was listed, or an error."""
    old, new = b"old!" * (SIZE // 4), b"new!" * (SIZE // 4)
    dev_cluster.put_many(bucket_name, {"a": old})
    bucket = hasty(dev_cluster).bucket(bucket_name)
    dataset = Outcomes(bucket, cache=cache)
    breaks = {"truncate_at": SIZE - 100} if how != "in one piece" else {}
    dev_cluster.fault(bucket_name, "a", method="GET", bytes_per_s=SIZE * 2, count=1, **breaks)
    dev_cluster.reset_requests()
    found: list[Any] = []
    reading = threading.Thread(target=lambda: found.append(dataset[0][1]))
    reading.start()
    wait_until(lambda: dev_cluster.requests()["BYTES"] > 0)
    dev_cluster.put_many(bucket_name, {"a": new})
    reading.join(30)
    if how == "in one piece":
        assert found == [old]
    else:
        assert isinstance(found[0], ObjectChangedError)
        assert re.search(f"ais://{bucket_name}/a changed on the cluster at {dev_cluster.endpoint}", str(found[0]))
    assert cache.contains(dataset.manifest.ref(0)) == (found == [old])
    assert AISMapDataset(bucket, cache=cache)[0] == ("a", new)
    assert cache.verify() == []
