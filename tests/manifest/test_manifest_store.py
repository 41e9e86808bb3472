"""Manifests on disk, shared by processes that come and go. Promises 2 and 3: never in the way, never stuck."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from aiscache.errors import ManifestError
from aiscache.manifest import Draft, Manifest, ManifestStore, open_manifests

ID, OTHER = "1" * 32, "2" * 32
MakeDraft = Callable[..., Draft]


class Builder:
    """Counts how often it was asked."""

    def __init__(self, draft: MakeDraft, count: int = 10) -> None:
        self.draft, self.count, self.calls = draft, count, 0

    def __call__(self) -> Draft:
        self.calls += 1
        return self.draft(self.count)


@pytest.fixture
def store(tmp_path: Path) -> ManifestStore:
    return ManifestStore(str(tmp_path / "manifests"))


def manifests(store: ManifestStore) -> list[str]:
    return sorted(name for name in os.listdir(store.directory) if name.endswith(".manifest"))


def test_a_listing_becomes_a_private_file(store: ManifestStore, draft: MakeDraft) -> None:
    before = time.time()
    manifest = store.load_or_build(ID, lambda: draft(10))
    assert len(manifest) == 10
    (name,) = manifests(store)
    assert name.startswith(f"{ID}-")
    assert os.path.join(store.directory, name) == manifest.path
    assert stat.S_IMODE(os.stat(manifest.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(store.directory).st_mode) == 0o700
    assert before - 1 < manifest.listed_at < time.time() + 1


def test_each_call_lists_unless_an_age_is_allowed(store: ManifestStore, draft: MakeDraft) -> None:
    build = Builder(draft)
    first = store.load_or_build(ID, build)
    assert store.load_or_build(ID, build) is first
    assert build.calls == 2
    assert store.load_or_build(ID, build, max_age_s=60) is first
    assert build.calls == 2
    os.utime(first.path, (time.time(), time.time() - 100))
    assert store.load_or_build(ID, build, max_age_s=60) is first
    assert build.calls == 3
    # The same content was found again: its age counts from now.
    assert time.time() - first.listed_at < 30
    store.load_or_build(OTHER, build, max_age_s=60)
    assert build.calls == 4


def test_an_empty_listing_and_a_clock_that_was_set_back(store: ManifestStore, draft: MakeDraft) -> None:
    build = Builder(draft, 0)
    empty = store.load_or_build(ID, build)
    assert len(empty) == 0
    assert list(empty) == []
    assert store.load_or_build(ID, build, max_age_s=60) is empty
    assert build.calls == 1
    os.utime(empty.path, (time.time(), time.time() + 1000))
    store.load_or_build(ID, build, max_age_s=60)
    assert build.calls == 2


def test_replacing_removes_what_was_there(store: ManifestStore, draft: MakeDraft) -> None:
    store.load_or_build(ID, lambda: draft(10))
    store.load_or_build(ID, lambda: draft(11))
    assert len(manifests(store)) == 1


def test_a_newer_listing_removes_older_ones_that_nobody_has_open(store: ManifestStore, draft: MakeDraft) -> None:
    first = store.load_or_build(ID, lambda: draft(10))
    other = store.load_or_build(OTHER, lambda: draft(10))
    second = store.load_or_build(ID, lambda: draft(11))
    assert len(manifests(store)) == 3
    assert first.ref(3).name == "dir/000003"
    paths = {manifest.path for manifest in open_manifests(store.directory)}
    assert paths == {first.path, second.path, other.path}
    gone = first.path
    del first
    third = store.load_or_build(ID, lambda: draft(12))
    assert not os.path.exists(gone)
    assert {manifest.path for manifest in open_manifests(store.directory)} == {second.path, other.path, third.path}
    del second, other
    assert {manifest.path for manifest in open_manifests(store.directory)} == {third.path}


def test_other_processes_hold_manifests_too(store: ManifestStore, draft: MakeDraft) -> None:
    path = store.load_or_build(ID, lambda: draft(10)).path
    program = """if True:
        import sys
        from aiscache.manifest import Manifest
        manifest = Manifest.open(sys.argv[1])
        print(len(manifest), flush=True)
        input()"""
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "10\n"
        assert [manifest.path for manifest in open_manifests(store.directory)] == [path]
        store.load_or_build(ID, lambda: draft(11))
        assert os.path.exists(path)
        process.kill()
        process.wait()
    assert open_manifests(store.directory) == []
    store.load_or_build(ID, lambda: draft(12))
    assert not os.path.exists(path)


def test_a_forked_child_keeps_what_its_parent_drops(store: ManifestStore, draft: MakeDraft) -> None:
    manifest = store.load_or_build(ID, lambda: draft(10))
    done, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(done, 1)
        os._exit(0 if manifest.ref(9).name == "dir/000009" else 1)
    os.close(done)
    path = manifest.path
    del manifest
    store.load_or_build(ID, lambda: draft(11))
    assert os.path.exists(path)
    os.close(go)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store.load_or_build(ID, lambda: draft(12))
    assert not os.path.exists(path)


def test_a_damaged_file_is_listed_again(store: ManifestStore, draft: MakeDraft) -> None:
    path = store.load_or_build(ID, lambda: draft(10)).path
    with open(path, "r+b") as file:
        file.seek(300)
        file.write(b"\xff\xff\xff\xff")
    build = Builder(draft)
    manifest = store.load_or_build(ID, build, max_age_s=60)
    assert build.calls == 1
    assert manifest.path == path
    assert [ref.name for ref in manifest] == [f"dir/{n:06}" for n in range(10)]


def test_a_shorter_listing_says_so(store: ManifestStore, draft: MakeDraft) -> None:
    store.load_or_build(ID, lambda: draft(1000))
    with pytest.raises(ManifestError, match="has 900 objects, it had 1,000") as caught:
        store.load_or_build(ID, lambda: draft(900), on_shrink="error")
    assert (caught.value.before, caught.value.now) == (1000, 900)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="has 900 objects, it had 1,000"):
        store.load_or_build(ID, lambda: draft(900))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.load_or_build(ID, lambda: draft(900))
        store.load_or_build(ID, lambda: draft(901))


@pytest.mark.parametrize("how", ["a file", "read-only", "full"])
def test_without_a_usable_directory_it_lives_in_memory(tmp_path: Path, draft: MakeDraft, how: str) -> None:
    directory = tmp_path / "x"
    if how == "a file":
        directory.write_text("")
    elif how == "read-only":
        if os.geteuid() == 0:
            directory = Path("/proc/self/nosuch")
        else:
            directory.mkdir(mode=0o500)
    else:
        directory = Path("/dev/full/x")
    with pytest.warns(UserWarning, match="cannot be kept"):
        manifest = ManifestStore(str(directory)).load_or_build(ID, lambda: draft(10))
    assert manifest.path == ""
    assert len(manifest) == 10
    assert open_manifests(str(directory)) == []


def test_errors_of_the_listing_are_the_callers(store: ManifestStore, draft: MakeDraft) -> None:
    def fail() -> Draft:
        raise KeyError("the cluster is down")

    for _ in range(2):
        with pytest.raises(KeyError, match="the cluster is down"):
            store.load_or_build(ID, fail)
    assert len(store.load_or_build(ID, lambda: draft(3))) == 3


def test_without_an_identity_content_is_the_name(store: ManifestStore, draft: MakeDraft) -> None:
    build = Builder(draft)
    first = store.load_or_build("", build, max_age_s=60)
    assert store.load_or_build("", build, max_age_s=60) is first
    assert build.calls == 2
    assert len(manifests(store)) == 1


def _list(directory: str, start: object, results: object) -> None:
    def build() -> Draft:
        from aiscache.manifest import Source

        results.put("listed")  # type: ignore[attr-defined]
        made = Draft()
        made.begin(Source("u", "h", "ais", "", "b"))
        made.extend(["x"] * 1000, sizes=[1] * 1000, checksums=[""] * 1000, versions=["1"] * 1000)
        time.sleep(0.3)  # a listing takes its time
        return made

    start.wait()  # type: ignore[attr-defined]
    manifest = ManifestStore(directory).load_or_build(ID, build)
    results.put((len(manifest), manifest.path))  # type: ignore[attr-defined]


def test_processes_that_start_together_list_at_most_twice(store: ManifestStore) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(6), context.Queue()
    processes = [context.Process(target=_list, args=(store.directory, start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    answers = []
    while sum(isinstance(answer, tuple) for answer in answers) < 6:
        answers.append(results.get(timeout=60))
    for process in processes:
        process.join(30)
    assert 1 <= answers.count("listed") <= 2
    assert len({answer for answer in answers if answer != "listed"}) == 1
    results.close()
    results.join_thread()


def test_a_waiter_takes_a_listing_that_began_after_it_asked_and_no_other(
    store: ManifestStore, draft: MakeDraft
) -> None:
    inside, leave, waiting = threading.Event(), threading.Event(), threading.Event()

    def first() -> Draft:
        inside.set()
        leave.wait(20)
        return draft(10)

    second, third = Builder(draft, 11), Builder(draft, 12)
    threads = [threading.Thread(target=store.load_or_build, args=(ID, first))]
    threads[0].start()
    assert inside.wait(20)
    held: list[Manifest] = []

    def ask() -> None:
        waiting.set()
        held.append(store.load_or_build(ID, second))

    threads += [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    assert waiting.wait(20)
    leave.set()
    for thread in threads:
        thread.join(30)
    # The first one's began before these asked: one of them lists, and the others take that (unless one asked late).
    assert second.calls >= 1
    assert {len(manifest) for manifest in held} == {11}
    assert len(store.load_or_build(ID, third, max_age_s=60)) == 11
    assert third.calls == 0


def test_a_wait_is_bounded(store: ManifestStore, draft: MakeDraft) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow() -> Draft:
        inside.set()
        leave.wait(30)
        return draft(10)

    thread = threading.Thread(target=store.load_or_build, args=(ID, slow))
    thread.start()
    assert inside.wait(20)
    began = time.monotonic()
    assert len(store.load_or_build(ID, lambda: draft(20), wait_s=0.2)) == 20
    assert time.monotonic() - began < 10
    assert len(store.load_or_build(OTHER, lambda: draft(30))) == 30  # nobody lists that
    leave.set()
    thread.join(30)


def test_torn_files_and_very_old_ones_are_cleaned_up(store: ManifestStore, draft: MakeDraft) -> None:
    old = store.load_or_build(OTHER, lambda: draft(1)).path
    os.utime(old, (0, 0))
    torn = os.path.join(store.directory, ".writing-1-1")
    Path(torn).write_bytes(b"half")
    foreign = os.path.join(store.directory, "notes.txt")
    Path(foreign).write_text("mine")
    store.load_or_build(ID, lambda: draft(10))
    assert not os.path.exists(old)
    assert not os.path.exists(torn)
    assert os.path.exists(foreign)
