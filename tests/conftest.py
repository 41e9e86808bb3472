"""What all tests share: a cluster to talk to."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest

from aiscache.devserver import DevCluster
from tests.forks import ForkServer
from tests.leaks import Holdings, leaked_since


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", metavar="URL", default="", help="run what can be against this AIStore cluster")


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What `tests.remote` starts its processes with."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _session_cluster() -> Iterator[DevCluster]:
    with DevCluster(targets=3) as cluster:
        yield cluster


@pytest.fixture
def dev_cluster(_session_cluster: DevCluster) -> DevCluster:
    """A dev server with three targets, shared by all tests: no faults, no delay, counts at zero. Use a bucket_name."""
    _session_cluster.clear_faults()
    _session_cluster.set_delay(0)
    _session_cluster.reset_requests()
    return _session_cluster


@pytest.fixture
def bucket_name(request: pytest.FixtureRequest) -> str:
    """A bucket name that no other test uses. The bucket doesn't exist yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    return f"{stem}-{secrets.token_hex(3)}"


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    """Each test leaves no thread and no child."""
    before = Holdings.now()
    yield
    leaked = leaked_since(before, kinds=("threads", "children"))
    assert not leaked
