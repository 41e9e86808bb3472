"""A machine that has no space, no descriptors, no rights, no readers, or that somebody tidies up by hand.

Whatever is missing, whoever reads gets the right bytes or an error of ours: a local failure becomes a direct read, one
warning and a counter. None of it ends the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiscache import Cache
from aiscache.devserver import DevCluster
from aiscache.errors import CacheDirectoryError
from aiscache.origin import Origin
from tests.reader import Reading, Told
from tests.store.objects import disk_usage

COUNT, SIZE = 40, 30_000


@pytest.fixture
def reading(dev_cluster: DevCluster, bucket_name: str) -> Iterator[Reading]:
    yield Reading(dev_cluster, bucket_name, count=COUNT, size=SIZE)
    Origin.close_all()


def mounted(path: Path, *options: str) -> None:
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A directory that a test mounts something on."""
    path = tmp_path / "mount"
    yield path
    subprocess.run(["umount", "-l", str(path)], capture_output=True)


def all_right(told: Told, count: int = COUNT) -> None:
    assert told.status == 0, told.errors
    assert told.lines == [f"({count}, [])"]
    assert "Traceback" not in told.errors
    assert len(told.warnings) <= 2, "one of each kind at most"


# ---- space

READ_TWICE = """
if case:
    resource.setrlimit(resource.RLIMIT_FSIZE, (case, resource.RLIM_INFINITY))
try:
    cache = Cache(path, capacity="50MB")
except AiscacheError as error:
    print(error)
else:
    first = read()
    assert first == read(), first
    print(first)
    cache.close()
"""


def refused_or_all_right(told: Told, path: Path) -> bool:
    """Tell whether the cache could be made at all; if not, the error names it."""
    refused = "cannot be" in "".join(told.lines)
    if refused:
        assert str(path) in told.lines[0]
        assert told.status == 0
    else:
        all_right(told)
    return not refused


def everything_is_kept(reading: Reading, path: Path) -> None:
    with Cache(path, capacity="10MB") as cache:
        assert cache.verify() == []
        assert reading.is_right(reading.refs, cache.read_many(reading.refs))
        assert all(map(cache.contains, reading.refs))


def test_a_disk_that_is_full_at_any_write(reading: Reading, tmp_path: Path) -> None:
    paths = [tmp_path / f"{size}k" for size in (*range(4, 64, 4), 64, 96, 128, 300, 500, 700, 1000)]
    try:
        for path in paths:
            mounted(path, "-t", "tmpfs", "-o", f"size={path.name}", "tmpfs")
        all_told = reading.run_each(READ_TWICE, [(path / "cache", None) for path in paths])
        usable = [refused_or_all_right(told, path) for path, told in zip(paths, all_told, strict=True)]
        assert usable == sorted(usable), "from some size on it can be used"
        assert 5 < sum(usable) < len(paths) - 5
        for path in paths:
            subprocess.run(["mount", "-o", "remount,size=20m", str(path)], check=True)
            everything_is_kept(reading, path / "cache")
    finally:
        for path in paths:
            subprocess.run(["umount", "-l", str(path)], capture_output=True)


def test_a_limit_on_the_length_of_files_at_any_write(reading: Reading, tmp_path: Path) -> None:
    limits = [1, 100, 1000, 4096, 8192, 12_288, 16_384, 32_768, 65_536, 100_000, 300_000, 600_000, 1_100_000]
    cases = [(tmp_path / str(limit), limit) for limit in limits]
    for (path, limit), told in zip(cases, reading.run_each(READ_TWICE, cases), strict=True):
        assert refused_or_all_right(told, path) or limit < 300_000
        everything_is_kept(reading, path)


def test_an_unnamed_cache_in_64_mb_of_shared_memory(dev_cluster: DevCluster, bucket_name: str) -> None:
    """What a container has unless it is told otherwise; the data is larger."""
    reading = Reading(dev_cluster, bucket_name, count=80, size=1_000_000)
    around = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*around, "true"], capture_output=True).returncode:
        pytest.skip("cannot mount in a namespace of its own")
    fill = "fd = os.open('/dev/shm/theirs', os.O_CREAT | os.O_WRONLY)\nos.posix_fallocate(fd, 0, 25_000_000)\n"
    told = reading.run(fill + READ_TWICE, None, around=around)
    all_right(told, 80)


# ---- descriptors


LESS_DESCRIPTORS = """
cache = Cache(path, capacity="50MB")
assert read(refs[:5]) == (5, [])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
limit = max(map(int, os.listdir("/proc/self/fd"))) + case
Origin.close_all()
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
right, refused = read()
assert right + 5 * len(refused) == len(refs), (right, refused)
assert right >= 5, "what is here needs no connection"
assert all("ais://" in text for text in refused)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(read())
assert cache.verify() == []
cache.close()
"""


def test_no_more_descriptors(reading: Reading, tmp_path: Path) -> None:
    cases = [(tmp_path / str(spare), spare) for spare in range(16)]
    for told in reading.run_each(LESS_DESCRIPTORS, cases):
        all_right(told)


# ---- rights


def test_a_file_system_that_was_made_read_only(reading: Reading, mount: Path) -> None:
    """It is refused when it is opened. While it is open, only the kernel can do that: see the next test."""
    mounted(mount, "-t", "tmpfs", "-o", "size=20m", "tmpfs")
    half = reading.refs[::2]
    with Cache(mount / "cache", capacity="10MB") as cache:
        cache.read_many(half)
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    with pytest.raises(CacheDirectoryError, match=f"{mount}/cache"):
        Cache(mount / "cache")
    with pytest.raises(CacheDirectoryError, match=f"{mount}/another"):
        Cache(mount / "another")


READ_ONLY = """
cache = Cache(path, capacity="20MB")
assert read(refs[::2]) == (len(refs[::2]), [])
with open(case, "w") as trigger:
    trigger.write("1")
print(read())
before = cache.stats()
assert read() == (len(refs), [])
reads = cache.stats() - before
assert (reads.hits, reads.fetched_objects) == (20, 20), reads
assert cache.verify() == []
try:
    cache.clear()
except AiscacheError as error:
    assert "Read-only file system" in str(error)
cache.close()
"""


def test_a_file_system_that_turns_read_only_while_it_is_used(reading: Reading, mount: Path, tmp_path: Path) -> None:
    """As ext4 does when its disk fails: what is there is read on, the rest comes from the cluster."""
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 32 << 20)
    if not shutil.which("mkfs.ext4") or subprocess.run(["mkfs.ext4", "-q", str(image)]).returncode:
        pytest.skip("cannot make a file system")
    mounted(mount, "-o", "loop,errors=remount-ro", str(image))
    device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(mount) in line)
    trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
    if not os.access(trigger, os.W_OK):
        pytest.skip("cannot make a file system fail")
    all_right(reading.run(READ_ONLY, mount / "cache", case=str(trigger)))
    subprocess.run(["umount", str(mount)], check=True)
    mounted(mount, "-o", "loop", str(image))
    everything_is_kept(reading, mount / "cache")


# ---- LMDB


def test_an_index_that_is_full(reading: Reading, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        cache.read_many(reading.refs[:10])
        store = cache.store()
        assert store is not None
        store._index._env.set_mapsize(store._index._env.info()["last_pgno"] * 4096 + 4096)
        for _ in range(3):
            for ref in reading.refs:
                assert bytes(cache.read(ref)) == reading.bodies[ref.name]
        assert cache.stats().fallbacks > 0
    assert sum("cannot write to the index" in record.message for record in caplog.records) <= 1
    with Cache(tmp_path / "cache") as cache:
        assert cache.verify() == []
        assert reading.is_right(reading.refs, cache.read_many(reading.refs))
        assert all(map(cache.contains, reading.refs))


HOLD_ALL_READERS = """
import lmdb, sys
env = lmdb.open(sys.argv[1], max_dbs=3, lock=True)
held = []
try:
    while True:
        held.append(env.begin())
except lmdb.ReadersFullError:
    print("held", flush=True)
sys.stdin.read()
"""


def test_an_index_with_no_reader_left(reading: Reading, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache"
    with Cache(path, capacity="50MB") as cache:
        cache.read_many(reading.refs)
        command = [sys.executable, "-c", HOLD_ALL_READERS, str(path / "index")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert reading.is_right(reading.refs, cache.read_many(reading.refs))
            assert bytes(cache.read(reading.refs[0])) == reading.bodies[reading.refs[0].name]
            assert cache.stats().fallbacks > 0
            assert sum("cannot read the index" in record.message for record in caplog.records) == 1
            told = reading.run(READ_TWICE, path)
            assert told.status == 0
            assert f"the cache in {path} cannot be opened: mdb_txn_begin: MDB_READERS_FULL" in told.lines[0]
            holder.kill()
        before = cache.stats()
        assert reading.is_right(reading.refs, cache.read_many(reading.refs))
        assert (cache.stats() - before).hits == COUNT, "the slots of a dead process are free again"
        assert cache.verify() == []


# ---- somebody's hands


@pytest.mark.parametrize("what", ["index", "segments", "everything"])
def test_what_is_deleted_under_a_running_process(reading: Reading, tmp_path: Path, what: str) -> None:
    path = tmp_path / "cache"
    program = 'cache = Cache(path, capacity="50MB"); print(read()); cache.close()'
    with Cache(path, capacity="50MB") as cache:
        views = cache.read_many(reading.refs[:20])
        shutil.rmtree(path if what == "everything" else path / what)
        for _ in range(2):
            assert reading.is_right(reading.refs, cache.read_many(reading.refs))
        all_right(reading.run(program, path))
        for ref in reading.refs:
            assert bytes(cache.read(ref)) == reading.bodies[ref.name]
        assert reading.is_right(reading.refs[:20], views)
        cache.stats()
    all_right(reading.run(program, path))
    with Cache(path, capacity="50MB") as cache:
        assert cache.verify() == []
        assert all(map(cache.contains, reading.refs))


CUT_OFF = """
cache = Cache(path, capacity="50MB")
assert read() == (len(refs), [])
if case[1] == "sealed":
    cache.store()._space.retire_all()
for segment in cache.store().directory.segments.glob("*.seg"):
    os.truncate(segment, case[0])
time.sleep(0.3)
print(read())
print(read(at_a_time=1))
print(cache.stats().checksum_failures > 0)
cache.close()
"""


def test_a_segment_that_is_cut_off_under_a_running_process(reading: Reading, tmp_path: Path) -> None:
    """Touching a page past a file's end kills a process: the next reads and writes must not come to that."""
    how = [(keep, state) for keep in (0, 100, 4096, 200_000) for state in ("open", "sealed")]
    cases = [(tmp_path / f"{keep}-{state}", (keep, state)) for keep, state in how]
    for (path, _), told in zip(cases, reading.run_each(CUT_OFF, cases), strict=True):
        assert (told.status, told.lines) == (0, [f"({COUNT}, [])"] * 2 + ["True"]), told.errors
        with Cache(path) as cache:
            assert cache.verify() == []
            assert reading.is_right(reading.refs, cache.read_many(reading.refs))


@pytest.mark.parametrize("days", [-4_000, 4_000])
def test_clocks_that_jump(reading: Reading, tmp_path: Path, days: int) -> None:
    """Times of files decide what is evicted first and how old a listing is: never what is right."""
    path = tmp_path / "cache"
    with Cache(path, capacity="700kB") as cache:
        cache.read_many(reading.refs[:15])
    when = time.time() + days * 86_400
    for file in [path, *path.rglob("*")]:
        os.utime(file, (when, when))
    with Cache(path) as cache:
        for ref in (*reading.refs, *reading.refs):
            assert bytes(cache.read(ref)) == reading.bodies[ref.name]
        assert cache.stats(scope="process").evicted_objects > 0, "what nobody uses makes room all the same"
        assert cache.verify() == []
    assert disk_usage(path) <= 700_000


# ---- many


MANY = """
cache = Cache(path, capacity="50MB")
cache.close()
Origin.close_all()
gate = os.pipe()
children = []
for number in range(case):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(gate[1])
            os.read(gate[0], 1)
            cache = Cache(path)
            status = 0 if read(refs[number % 7:] + refs[:number % 7]) == (len(refs), []) else 2
            cache.close()
        finally:
            os._exit(status)
    children.append(pid)
os.close(gate[1])
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * len(children))
"""


def test_64_processes_at_once_fetch_each_object_once(dev_cluster: DevCluster, reading: Reading, tmp_path: Path) -> None:
    dev_cluster.reset_requests()
    told = reading.run(MANY, tmp_path / "cache", case=64)
    assert (told.status, told.lines) == (0, ["True"]), told.errors
    with Cache(tmp_path / "cache") as cache:
        assert cache.verify() == []
        assert cache.stats().fetched_objects == COUNT, str(cache.stats().asdict())
