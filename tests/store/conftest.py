"""Where stores are tested: on disk, in memory, and with a memory tier before the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.leaks import Holdings, leaked_since


@pytest.fixture(autouse=True)
def nothing_is_held(fork_server: ForkServer) -> Iterator[None]:
    """Each test leaves no file open and no segment mapped."""
    before = Holdings.now()
    yield
    leaked = leaked_since(before)
    assert not leaked


@pytest.fixture(autouse=True)
def shared_memory(nothing_is_held: None, private_shared_memory: Path) -> Path:
    return private_shared_memory


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
