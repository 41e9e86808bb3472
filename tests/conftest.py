"""What all tests share: a cluster to talk to."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiscache.devserver import DevCluster
from aiscache.store import tiers
from tests.certificates import Certificates
from tests.forks import ForkServer
from tests.leaks import Holdings, leaked_since
from tests.remote import Remote


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", metavar="URL", default="", help="run what can be against this AIStore cluster")


def pytest_configure() -> None:
    """Have Ctrl-C reach the tests' processes, also where a shell started us in the background, with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What `tests.remote` starts its processes with."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def private_shared_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A part of /dev/shm of the test's own, so that tests may run beside each other and beside real caches."""
    path = Path(tempfile.mkdtemp(prefix="test-", dir="/dev/shm"))
    monkeypatch.setattr(tiers, "SHARED_MEMORY", path)
    yield path
    for remote in list(Remote.alive):  # of a test that failed, or that has no more use for them
        remote.kill()
    shutil.rmtree(path)


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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of a cluster and of its clients."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


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
