"""A cluster behind TLS, from the listing to the batches, and what is said when a certificate is not right."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aistore.sdk import Client

from aiscache import AISMapDataset, Cache, DataLoader
from aiscache.devserver import DevCluster, Tls
from aiscache.errors import OriginError, UnreachableError
from aiscache.origin import BucketName, Origin
from tests.certificates import Certificates
from tests.prefetch.processes import wait_until

COUNT, SIZE = 120, 10_000
_VARIABLES = ("AIS_CLIENT_CA", "AIS_CRT", "AIS_CRT_KEY", "AIS_SKIP_VERIFY_CRT", "AIS_SKIP_VERIFY")


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    Origin.close_all()


@pytest.fixture(scope="module")
def open_cluster(certificates: Certificates) -> Iterator[DevCluster]:
    with DevCluster(2, tls=certificates.tls()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def strict_cluster(certificates: Certificates) -> Iterator[DevCluster]:
    """One that serves nobody without a certificate, and does not tell everybody what it has."""
    with DevCluster(2, token="sesame", tls=certificates.tls(wants_clients=True)) as cluster:
        yield cluster


def everything_arrives(cluster: DevCluster, client: Client, bucket: str, path: Path) -> None:
    """Listing, misses in workers, straight to the targets and redirected by the proxy, and the prefetcher's pool."""
    made = cluster.generate(bucket, COUNT, SIZE)
    cluster.add_etl("same", "echo")
    with Cache(path, capacity="20MB") as cache:
        dataset = AISMapDataset(client.bucket(bucket), cache=cache)
        cluster.reset_requests()
        cluster.set_delay(0.05)
        try:
            loader = DataLoader(dataset, batch_size=8, num_workers=1, collate_fn=list, prefetch_processes=1)
            seen = {}
            for number, batch in enumerate(loader):
                seen.update(batch)
                if number == 0:
                    wait_until(lambda: loader.prefetcher.stats().objects > 0)
            assert loader.prefetcher.stats().failed == 0
            loader.prefetcher.close()
        finally:
            cluster.set_delay(0)
        assert seen == {name: made.content(name) for name in made}
        requests = cluster.requests()
        assert (requests["GET"], requests["REDIRECT"]) == (COUNT, 0), "bytes come straight from the targets"
        transformed = AISMapDataset(client.bucket(bucket), etl_name="same", cache=cache)
        assert transformed[0] == (dataset[0][0], dataset[0][1])
        assert cluster.requests()["REDIRECT"] == 1, "an ETL's output comes through the proxy"
        assert cache.verify() == []


def test_with_the_clients_own_arguments(
    open_cluster: DevCluster, certificates: Certificates, bucket_name: str, tmp_path: Path
) -> None:
    everything_arrives(open_cluster, open_cluster.client(ca_cert=certificates.ca), bucket_name, tmp_path / "cache")


def test_with_the_environments_ca_and_client_certificate(
    strict_cluster: DevCluster,
    certificates: Certificates,
    bucket_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIS_CLIENT_CA", certificates.ca)
    monkeypatch.setenv("AIS_CRT", certificates.client_pair[0])
    monkeypatch.setenv("AIS_CRT_KEY", certificates.client_pair[1])
    everything_arrives(strict_cluster, strict_cluster.client(), bucket_name, tmp_path / "cache")


@pytest.mark.parametrize("how", ["argument", "environment"])
@pytest.mark.filterwarnings("ignore:.*is insecure:UserWarning")
def test_without_verifying(
    open_cluster: DevCluster, bucket_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("AIS_SKIP_VERIFY_CRT", "true")
    client = open_cluster.client(skip_verify=how == "argument")
    open_cluster.put_many(bucket_name, {"a": b"alpha"})
    dataset = AISMapDataset(client.bucket(bucket_name), cache=tmp_path / "cache")
    assert dataset[0] == ("a", b"alpha")
    dataset.cache.close()


def test_the_ca_of_the_client_wins_over_the_bundle_of_requests(
    open_cluster: DevCluster, certificates: Certificates, bucket_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cluster.put_many(bucket_name, {"a": b"alpha"})
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates.strange_ca)
    origin = Origin.from_client(open_cluster.client(ca_cert=certificates.ca))
    assert origin.uuid == open_cluster.uuid
    assert [entry.n for page in origin.list_pages(BucketName(name=bucket_name)) for entry in page] == ["a"]


def told(client: Client) -> list[str]:
    """Return what the cluster map's and the listing's errors say, each of which comes at once."""
    origin = Origin.from_client(client)
    texts = []
    for ask in (lambda: origin.uuid, lambda: list(origin.list_pages(BucketName(name="b")))):
        began = time.monotonic()
        with pytest.raises(OriginError) as caught:
            ask()
        assert time.monotonic() - began < 1, "nothing was waited for: trying again is no use"
        assert origin.endpoint in str(caught.value)
        texts.append(str(caught.value))
    return texts


@pytest.mark.parametrize("ca", ["none", "another"])
def test_a_cluster_that_is_not_trusted_says_which_ca_to_set(
    open_cluster: DevCluster, certificates: Certificates, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for text in told(open_cluster.client(ca_cert=certificates.strange_ca if ca == "another" else None)):
        assert "unable to get local issuer certificate" in text
        assert "set AIS_CLIENT_CA or Client(ca_cert=...)" in text


def test_an_expired_certificate_says_so(certificates: Certificates) -> None:
    with DevCluster(1, tls=certificates.expired()) as cluster:
        for text in told(cluster.client(ca_cert=certificates.ca)):
            assert "certificate has expired" in text
            assert "must be renewed" in text


def test_a_certificate_for_another_name_says_so(certificates: Certificates) -> None:
    with DevCluster(1, tls=certificates.of_another_name()) as cluster:
        for text in told(cluster.client(ca_cert=certificates.ca)):
            assert "127.0.0.1" in text
            assert "AIS_ENDPOINT" in text


@pytest.mark.parametrize("certificate", ["none", "another's"])
def test_a_cluster_that_wants_a_client_certificate_says_which_to_set(
    strict_cluster: DevCluster, certificates: Certificates, certificate: str
) -> None:
    client_cert = certificates.strange_client if certificate == "another's" else None
    for text in told(strict_cluster.client(ca_cert=certificates.ca, client_cert=client_cert)):
        assert "set AIS_CRT and AIS_CRT_KEY" in text
        assert "sesame" not in text


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        ({"ca_cert": "missing.pem"}, "AIS_CLIENT_CA"),
        ({"client_cert": "missing.pem"}, "AIS_CRT"),
        ({"client_cert": ("missing.pem", "missing.key")}, "AIS_CRT"),
        ({"client_cert": __file__}, "AIS_CRT"),
    ],
)
def test_a_file_that_is_no_certificate_is_named(
    open_cluster: DevCluster, certificates: Certificates, options: dict[str, Any], variable: str
) -> None:
    for text in told(open_cluster.client(**{"ca_cert": certificates.ca, **options})):
        assert "missing.pem" in text or __file__ in text or "PEM lib" in text
        assert f"in {variable}" in text


def test_a_target_whose_certificate_is_not_trusted_is_an_error_of_the_object(
    certificates: Certificates, bucket_name: str, tmp_path: Path
) -> None:
    """The certificate expires, or the CA is replaced, after the dataset was listed."""
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(Path(certificates.ca).read_bytes())
    with DevCluster(1, tls=certificates.tls()) as cluster, Cache(tmp_path / "cache", capacity="10MB") as cache:
        cluster.put_many(bucket_name, {"a": b"alpha", "b": b"beta"})
        dataset = AISMapDataset(cluster.client(ca_cert=str(trusted)).bucket(bucket_name), cache=cache)
        assert dataset[0] == ("a", b"alpha")
        Origin.close_all()
        trusted.write_bytes(Path(certificates.strange_ca).read_bytes())
        with pytest.raises(UnreachableError, match=f"ais://{bucket_name}/b could not be read .*AIS_CLIENT_CA"):
            _ = dataset[1]
        assert dataset[0] == ("a", b"alpha"), "what is cached needs no cluster"


def test_the_cluster_itself_refuses_what_it_should(
    strict_cluster: DevCluster, open_cluster: DevCluster, certificates: Certificates
) -> None:
    url = f"{open_cluster.endpoint}/v1/health"
    with pytest.raises(OSError, match=r"Connection reset|Remote end closed"):
        urllib.request.urlopen(url.replace("https:", "http:"), timeout=5)
    trusting = ssl.create_default_context(cafile=certificates.ca)
    assert urllib.request.urlopen(url, timeout=5, context=trusting).status == 200
    with pytest.raises(ssl.SSLError, match=r"CERTIFICATE_REQUIRED|certificate required"):
        urllib.request.urlopen(f"{strict_cluster.endpoint}/v1/health", timeout=5, context=trusting)
    with pytest.raises(OSError, match="cannot use Tls"):
        DevCluster(1, tls=Tls(cert=certificates.ca))
