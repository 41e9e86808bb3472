"""The unnamed cache is there while somebody uses it, and gone after that."""

from __future__ import annotations

import os
import random
import signal
import traceback
from pathlib import Path

from aiscache.store import registry
from tests.store.objects import Blob, opened
from tests.store.peer import Peer


def test_it_appears_and_goes(shared_memory: Path) -> None:
    with opened(None, "20MB") as store:
        assert Blob("a").put(store) is not None
        assert registry.unnamed_path().exists()
        assert store.directory.path.is_relative_to(shared_memory)
    assert list(shared_memory.iterdir()) == []


def test_it_stays_while_another_process_uses_it(shared_memory: Path) -> None:
    with Peer(None, "20MB") as peer:
        with opened(None) as store:
            view = Blob("a").put(store)
            del view
        assert peer.ask("get", [Blob("a")]) == [True]
        with opened(None) as store:
            assert Blob("a").is_right(store)
        peer.ask("close")
        assert list(shared_memory.iterdir()) == []


def test_the_next_user_removes_what_killed_ones_left(shared_memory: Path) -> None:
    peers = [Peer(None, "20MB") for _ in range(2)]
    assert peers[0].ask("put", [Blob("yesterday")]) == [True]
    peers[0].kill()
    assert peers[1].ask("get", [Blob("yesterday")]) == [True]
    peers[1].kill()
    assert registry.unnamed_path().exists()
    with opened(None, "20MB") as store:
        assert not Blob("yesterday").is_right(store)
        assert store.upkeep.count() == 0
    assert list(shared_memory.iterdir()) == []


def test_views_outlive_it(shared_memory: Path) -> None:
    with opened(None, "20MB") as store:
        view = Blob("a").put(store)
    assert list(shared_memory.iterdir()) == []
    assert bytes(view) == Blob("a").data


def test_a_forked_child_has_a_share_of_its_own(shared_memory: Path) -> None:
    go, done = os.pipe(), os.pipe()
    with opened(None, "20MB") as store:
        Blob("a").put(store)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(30)  # should the parent fail meanwhile
                with opened(None) as own:
                    os.write(done[1], b"x")
                    os.read(go[0], 1)
                    status = 0 if Blob("a").is_right(own) else 2
            finally:
                os._exit(status)
        os.read(done[0], 1)
    assert registry.unnamed_path().exists()
    os.write(go[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(shared_memory.iterdir()) == []
    for fd in (*go, *done):
        os.close(fd)


def test_sixteen_processes_join_and_leave(shared_memory: Path) -> None:
    """Nobody ever finds the cache that it uses removed, and the last one leaves nothing behind."""
    for _ in range(3):
        pids = []
        for number in range(16):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    chosen = random.Random(number)
                    for turn in range(6):
                        with opened(None, "20MB") as store:
                            blob = Blob(f"{number}/{turn}", size=chosen.randint(0, 3000))
                            blob.put(store)
                            assert blob.is_right(store)
                            assert os.path.samestat(os.stat(store.directory.leases), os.fstat(store._leases._fd)), (
                                "removed while in use"
                            )
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            pids.append(pid)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 16
        assert list(shared_memory.iterdir()) == []
