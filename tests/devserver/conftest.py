"""Contract tests run against the dev server, or with `--cluster URL` against a real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aistore.sdk import Bucket, Client


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """The cluster under test."""
    url: str = request.config.getoption("--cluster")
    return url or request.getfixturevalue("dev_cluster").endpoint


@pytest.fixture
def client(endpoint: str) -> Client:
    """The official SDK's client of the cluster under test."""
    return Client(endpoint)


@pytest.fixture
def bucket(client: Client, bucket_name: str) -> Iterator[Bucket]:
    """An empty bucket."""
    yield client.bucket(bucket_name).create()
    client.bucket(bucket_name).delete(missing_ok=True)


@pytest.fixture(autouse=True)
def _dev_only(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--cluster") and "dev_cluster" in request.fixturenames:
        pytest.skip("about the dev server, not about AIStore")
