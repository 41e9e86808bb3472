"""Where stores are tested: on disk, in memory, and with a memory tier before the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiscache.store import tiers
from tests.forks import ForkServer
from tests.leaks import Holdings, leaked_since
from tests.remote import Remote


@pytest.fixture(autouse=True)
def nothing_is_held(fork_server: ForkServer) -> Iterator[None]:
    """Each test leaves no file open and no segment mapped."""
    before = Holdings.now()
    yield
    leaked = leaked_since(before)
    assert not leaked


@pytest.fixture(autouse=True)
def shared_memory(monkeypatch: pytest.MonkeyPatch, nothing_is_held: None) -> Iterator[Path]:
    """A part of /dev/shm of the test's own, so that tests may run beside each other and beside real caches."""
    path = Path(tempfile.mkdtemp(prefix="store-test-", dir="/dev/shm"))
    monkeypatch.setattr(tiers, "SHARED_MEMORY", path)
    yield path
    for peer in list(Remote.alive):  # a test that failed, or that has no more use for them
        peer.kill()
    shutil.rmtree(path)


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, shared_memory: Path) -> Path:
    """Where a cache directory may be made: on a disk, then on tmpfs."""
    return (tmp_path if request.param == "disk" else shared_memory) / "cache"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def memory(shared_memory: Path) -> Path:
    return shared_memory / "cache"
