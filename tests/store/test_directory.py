"""Which directories are refused, and that the message says what to do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from aiscache.errors import AiscacheError, CacheDirectoryError
from aiscache.store import Directory, directory, registry
from tests.store.objects import Blob, opened

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")


def as_nobody(work: Callable[[], None]) -> str:
    """Run `work` as another user in a child; return the CacheDirectoryError that it raises."""
    ends = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
            try:
                work()
            except AiscacheError as error:
                os.write(ends[1], f"{type(error).__name__}: {error}".encode())
            except BaseException as error:
                os.write(ends[1], f"not ours: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(ends[1])
    with os.fdopen(ends[0]) as pipe:
        message = pipe.read()
    os.waitpid(pid, 0)
    return message


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A directory that every user can reach."""
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    return tmp_path


def test_a_new_one_is_private_and_tagged(disk: Path) -> None:
    made = Directory(disk)
    assert stat.S_IMODE(disk.stat().st_mode) == 0o700
    assert (disk / "format").read_text() == "aiscache 2\n"
    assert (disk / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert all(part.is_dir() for part in (made.index, made.segments, made.manifests))
    Directory(disk)


def test_missing_parents_are_made(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "a" / "b" / "c")
    assert directory.path.is_dir()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_nobody_else_can_read_any_file(disk: Path) -> None:
    with opened(disk, "20MB") as store:
        Blob("a").put(store)
        assert stat.S_IMODE(disk.stat().st_mode) == 0o700
        for path in disk.rglob("*"):
            if "seg" in path.name or path.name in {"leases", "data.mdb"}:
                assert not path.stat().st_mode & 0o077, path


def test_an_empty_directory_is_taken_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.mkdir()
    path.chmod(0o777)
    Directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheDirectoryError, match="is a file; give the path of a directory"):
        Directory(tmp_path / "cache")
    with pytest.raises(CacheDirectoryError, match="cannot be made: Not a directory; give another one with Cache"):
        Directory(tmp_path / "cache" / "below")


def test_somebody_elses_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(
        CacheDirectoryError, match=r"is not empty and not a cache of aiscache .* give an empty or a new"
    ):
        Directory(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("text", ["aiscache 1\n", "something else", "\udcff\udcfe"])
def test_another_format(disk: Path, text: str) -> None:
    Directory(disk)
    (disk / "format").write_text(text, errors="surrogateescape")
    with pytest.raises(CacheDirectoryError, match=r"this version reads 'aiscache 2'; remove the directory or give"):
        Directory(disk)


@pytest.mark.parametrize("begun", ["", "a", "aiscache 2"])
def test_a_format_file_that_its_maker_had_no_time_to_fill(disk: Path, begun: str) -> None:
    Directory(disk)
    (disk / "format").write_text(begun)
    Directory(disk)
    assert (disk / "format").read_text() == "aiscache 2\n"


def test_writable_by_others(disk: Path) -> None:
    Directory(disk)
    disk.chmod(0o770)
    with pytest.raises(CacheDirectoryError, match=rf"can be written by others; run: chmod 700 {disk}"):
        Directory(disk)


@as_root
def test_another_owner(disk: Path) -> None:
    Directory(disk)
    os.chown(disk, NOBODY, NOBODY)
    with pytest.raises(CacheDirectoryError, match=r"belongs to user .*, this process runs as user 'root'; give"):
        Directory(disk)
    os.chown(disk, 54321, 54321)
    with pytest.raises(CacheDirectoryError, match="belongs to user id 54321"):
        Directory(disk)


@as_root
def test_seen_from_another_user(open_path: Path) -> None:
    path = open_path / "cache"
    Directory(path)
    path.chmod(0o755)
    assert "CacheDirectoryError: " in as_nobody(lambda: Directory(path))
    assert "belongs to user 'root'" in as_nobody(lambda: Directory(path))


@as_root
def test_a_link_planted_by_another_user(open_path: Path) -> None:
    Directory(open_path / "mine")
    link = open_path / "cache"
    link.symlink_to(open_path / "mine")
    Directory(link)  # a link of our own is good
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(CacheDirectoryError, match="belongs to user"):
        Directory(link)


@as_root
def test_a_parent_that_cannot_be_written(open_path: Path) -> None:
    message = as_nobody(lambda: Directory(open_path / "cache"))
    assert message.startswith("CacheDirectoryError: ")
    assert "cannot be made: Permission denied; give another one with Cache(path) or AISCACHE_DIR" in message


@as_root
def test_a_directory_of_ours_that_cannot_be_written(open_path: Path) -> None:
    path = open_path / "cache"
    path.mkdir()
    path.chmod(0o500)
    os.chown(path, NOBODY, NOBODY)
    assert "cannot be written; run: chmod 700" in as_nobody(lambda: Directory(path))


@as_root
def test_a_parent_that_cannot_be_searched(open_path: Path) -> None:
    closed = open_path / "closed"
    Directory(closed / "cache")
    closed.chmod(0o700)
    assert as_nobody(lambda: Directory(closed / "cache")).startswith("CacheDirectoryError: ")


@as_root
def test_the_unnamed_cache_where_another_user_planted_its_directory(shared_memory: Path) -> None:
    planted = registry.unnamed_path().parent
    planted.mkdir()
    os.chown(planted, NOBODY, NOBODY)
    with pytest.raises(CacheDirectoryError, match="is not a directory that only this user can write"), opened(None):
        pass
    assert list(planted.iterdir()) == []


@as_root
def test_the_unnamed_cache_behind_a_planted_link(shared_memory: Path, tmp_path: Path) -> None:
    registry.unnamed_path().parent.symlink_to(tmp_path)
    with pytest.raises(CacheDirectoryError, match="is not a directory that only this user can write"), opened(None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_shared_memory_at_all(shared_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiscache.store import tiers

    (shared_memory / "file").write_text("")
    monkeypatch.setattr(tiers, "SHARED_MEMORY", shared_memory / "file")
    with pytest.raises(CacheDirectoryError, match=r"needs shared memory in .*; name a directory with"), opened(None):
        pass


def test_network_file_systems(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("nfs4", "lustre", "fuse.sshfs"):
        monkeypatch.setattr(directory, "file_system_of", lambda path, kind=kind: kind)
        with pytest.raises(CacheDirectoryError, match=rf"on a network file system \({kind}\), where locks do not"):
            Directory(disk)


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:5 / /proc rw - proc proc rw
40 22 0:44 / /data\040sets rw shared:9 master:1 - nfs4 server:/export rw
41 22 0:45 / /data rw - fuse.sshfs me@host: rw
42 22 0:46 / /dev/shm rw - tmpfs shm rw
"""


@pytest.mark.parametrize(
    ("path", "device", "kind"),
    [
        ("/home/me", os.makedev(254, 0), "ext4"),
        ("/data sets/x", os.makedev(0, 44), "nfs4"),
        ("/data/x", os.makedev(0, 45), "fuse.sshfs"),
        ("/dev/shm/x", os.makedev(0, 46), "tmpfs"),
        ("/data sets/btrfs subvolume", os.makedev(0, 99), "nfs4"),
        ("/database", os.makedev(0, 99), "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, device: int, kind: str) -> None:
    assert directory.find_file_system(MOUNTS.strip().splitlines(), path=path, device=device) == kind


def test_what_the_kernel_tells_here(disk: Path, memory: Path) -> None:
    assert not Directory(disk).in_memory
    assert Directory(memory).in_memory
