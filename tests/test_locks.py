"""Byte locks: who excludes whom, and what frees them."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiscache.locks import ByteLocks


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "locks")


@pytest.fixture
def mine(path: str) -> Iterator[ByteLocks]:
    locks = ByteLocks(path)
    yield locks
    locks.close()


@pytest.fixture
def theirs(path: str) -> Iterator[ByteLocks]:
    locks = ByteLocks(path)
    yield locks
    locks.close()


class Holder:
    """Another process that holds byte 7 until it is told to end, or is killed."""

    def __init__(self, path: str) -> None:
        ready, self._go = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                assert ByteLocks(path).try_exclusive(7)
                os.write(ready[1], b"x")
                os.close(self._go[1])
                os.read(self._go[0], 1)
            finally:
                os._exit(0)
        os.read(ready[0], 1)
        os.close(ready[0])
        os.close(ready[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        os.close(self._go[0])
        os.close(self._go[1])
        os.waitpid(self.pid, 0)


def test_alone_excludes_all_and_shared_only_those_who_want_it_alone(mine: ByteLocks, theirs: ByteLocks) -> None:
    assert mine.try_exclusive(1)
    assert not theirs.try_exclusive(1)
    assert not theirs.try_shared(1)
    assert theirs.try_exclusive(2), "bytes are independent"
    mine.unlock(1)
    assert mine.try_shared(1)
    assert theirs.try_shared(1)
    assert not theirs.try_exclusive(1)
    assert theirs.try_shared(1), "what it had is not lost by asking for more"
    mine.unlock(1)
    assert theirs.try_exclusive(1)


def test_offsets_go_up_to_2_to_the_63(mine: ByteLocks, theirs: ByteLocks) -> None:
    for offset in (0, 1 << 60, (1 << 62) - 1, (1 << 63) - 2):
        assert mine.try_exclusive(offset)
        assert not theirs.try_shared(offset)
    assert os.path.getsize(mine.path) == 0


def test_threads_with_their_own_exclude_each_other(path: str) -> None:
    won = []
    barrier = threading.Barrier(8)

    def compete() -> None:
        locks = ByteLocks(path)
        barrier.wait()
        for offset in range(50):
            if locks.try_exclusive(offset):
                won.append(offset)
        barrier.wait()
        locks.close()

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(50))


def test_opening_and_closing_the_file_elsewhere_drops_nothing(mine: ByteLocks, theirs: ByteLocks) -> None:
    """As it would with POSIX locks."""
    assert mine.try_exclusive(1)
    with open(mine.path, "rb"):
        pass
    ByteLocks(mine.path).close()
    assert not theirs.try_shared(1)


def test_other_processes_are_excluded_until_they_end(mine: ByteLocks, path: str) -> None:
    holder = Holder(path)
    assert not mine.try_exclusive(7)
    assert not mine.is_free(7)
    assert not mine.wait_exclusive(7, timeout_s=0.05)
    assert not mine.wait_shared(7, timeout_s=0)
    holder.end()
    assert mine.try_exclusive(7)


def test_a_killed_holder_frees_its_bytes(mine: ByteLocks, path: str) -> None:
    holder = Holder(path)
    assert not mine.try_shared(7)
    holder.kill()
    assert mine.try_exclusive(7)


def test_a_waiter_gets_it_when_the_holder_is_killed(mine: ByteLocks, path: str) -> None:
    holder = Holder(path)
    got = []
    waiter = threading.Thread(target=lambda: got.append(mine.wait_exclusive(7, timeout_s=30)))
    waiter.start()
    holder.kill()
    waiter.join()
    assert got == [True]


def test_waiting_ends_at_its_deadline(mine: ByteLocks, theirs: ByteLocks) -> None:
    assert theirs.try_exclusive(1)
    began = time.monotonic()
    assert not mine.wait_exclusive(1, timeout_s=0.1)
    assert 0.1 <= time.monotonic() - began < 5


def test_is_free_takes_nothing(mine: ByteLocks, theirs: ByteLocks) -> None:
    assert mine.is_free(1)
    assert theirs.try_shared(1)
    assert not mine.is_free(1)
    theirs.unlock(1)
    assert mine.is_free(1)
    assert theirs.try_exclusive(1)


def test_a_forked_child_shares_the_locks_and_its_close_leaves_them(mine: ByteLocks, theirs: ByteLocks) -> None:
    assert mine.try_exclusive(1)
    pid = os.fork()
    if pid == 0:
        try:
            taken = mine.try_exclusive(1)  # the same open file description: it has it already
            mine.close()
        finally:
            os._exit(0 if taken else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not theirs.try_shared(1)


def test_a_child_that_keeps_the_descriptor_keeps_the_lock(path: str, theirs: ByteLocks) -> None:
    mine = ByteLocks(path)
    assert mine.try_exclusive(1)
    go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])
        os.read(go[0], 1)
        os._exit(0)
    os.close(go[0])
    mine.close()
    assert not theirs.try_shared(1)
    os.close(go[1])
    os.waitpid(pid, 0)
    assert theirs.try_shared(1)


def test_close_frees_all_and_may_be_called_again(path: str, theirs: ByteLocks) -> None:
    mine = ByteLocks(path)
    assert mine.try_exclusive(1)
    assert mine.try_shared(2)
    mine.close()
    mine.close()
    mine.unlock(1)
    assert theirs.try_exclusive(1)
    assert theirs.try_exclusive(2)


def test_close_after_the_last_of_some_objects_is_gone(path: str, theirs: ByteLocks) -> None:
    class Thing:
        pass

    mine, things = ByteLocks(path), [Thing(), Thing()]
    assert mine.try_exclusive(1)
    mine.close_after(things)
    things.pop()
    gc.collect()
    assert not theirs.try_shared(1)
    things.pop()
    gc.collect()
    assert theirs.try_shared(1)


def test_close_after_nothing_closes(path: str, theirs: ByteLocks) -> None:
    mine = ByteLocks(path)
    assert mine.try_exclusive(1)
    mine.close_after([])
    assert theirs.try_exclusive(1)


def test_the_file_is_private_and_a_link_is_not_followed(tmp_path: Path, mine: ByteLocks) -> None:
    assert os.stat(mine.path).st_mode & 0o777 == 0o600
    assert os.path.samestat(mine.stat(), os.stat(mine.path))
    (tmp_path / "link").symlink_to(mine.path)
    with pytest.raises(OSError, match="symbolic link"):
        ByteLocks(str(tmp_path / "link"))
