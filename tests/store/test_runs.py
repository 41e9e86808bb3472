"""What is noted of epochs: a bounded file that no process spoils for another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiscache.cache import Cache
from aiscache.store import runs
from aiscache.store.runs import EpochNote, noted, notes_in
from tests.cli.conftest import ref


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, capacity="20MB")


def notes(cache: Cache) -> list[EpochNote]:
    store = cache.store()
    assert store is not None
    return notes_in(store.directory.runs)


def test_what_happened_in_between_is_noted(cache: Cache) -> None:
    cache.put(ref(1), bytes(ref(1).size))
    cache.read(ref(1))
    store = cache.store()
    assert store is not None
    for number in range(2):
        with noted(store, kind="epoch") as doing:
            cache.read(ref(1))
            store.counters.took(0.003)
            doing.samples, doing.complete = 7, True
        note = notes(cache)[-1]
        assert (note.kind, note.samples, note.complete) == ("epoch", 7, True)
        assert (note.counters["hits"], sum(note.latencies), note.latencies[2]) == (1, 1, 1)
        assert note.number == number + notes(cache)[0].number
    assert len({note.run for note in notes(cache)}) == 1
    cache.close()


def test_an_epoch_that_ends_early_is_noted_as_such(cache: Cache) -> None:
    with pytest.raises(KeyError), noted(cache.store(), kind="epoch"):
        raise KeyError
    assert [note.complete for note in notes(cache)] == [False]
    cache.close()


def test_without_a_cache_and_after_its_end_nothing_is_noted(cache: Cache) -> None:
    with noted(None, kind="epoch"):
        pass
    with noted(cache.store(), kind="epoch"):
        cache.close()
        path = Path(str(cache.settings.path)) / "runs"
        path.mkdir()
    assert list(path.iterdir()) == []


def test_the_file_is_bounded_and_keeps_the_newest(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MOST_BYTES", 8000)
    path = Path(str(cache.settings.path)) / "runs"
    for number in range(40):
        with noted(cache.store(), kind="epoch") as doing:
            doing.samples = number
        assert path.stat().st_size <= 8000
    found = [note.samples for note in notes(cache)]
    assert found == list(range(40 - len(found), 40))
    assert len(found) > 2
    cache.close()


def test_lines_that_cannot_be_read_are_skipped(cache: Cache) -> None:
    path = Path(str(cache.settings.path)) / "runs"
    path.write_bytes(b'{"kind": "epo\n\xff\n{}\n')
    with noted(cache.store(), kind="epoch"):
        pass
    assert len(notes(cache)) == 1
    cache.close()
    path.unlink()
    assert notes_in(str(path)) == []


def test_processes_write_whole_lines(cache: Cache) -> None:
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(25):
                with noted(cache.store(), kind="epoch"):
                    pass
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert len(notes(cache)) == 100
    cache.close()
