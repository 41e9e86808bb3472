"""The cache directory: what lies where, and whether it is ours to use.

    format          "aiscache 2": whose directory this is; the first file made, checked by every opener
    CACHEDIR.TAG    tells backup programs to leave it out (bford.info/cachedir)
    boot            the boot id of the machine when the index was last known good
    leases flights  byte locks
    stats           counters of every process
    index/          the LMDB environment
    segments/       the bytes
    staging/        the bytes of objects that are read once; made when first needed
    manifests/      listings

Directories are made with mode 0700, files with 0600. Nothing that is not ours is ever written to or removed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from aiscache.errors import CacheDirectoryError

FORMAT = "aiscache 2\n"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is a cache of aiscache; it may be deleted.\n"
_ELSEWHERE = "give another one with Cache(path) or AISCACHE_DIR"
_WITHOUT_LOCKS = "give a directory on a local disk or on tmpfs instead"

# Names as /proc/self/mountinfo spells them. flock and fcntl locks are no-ops or per-host on many of these, and LMDB's
# documentation forbids them: "Do not use LMDB databases on remote filesystems" (lmdb.h, Caveats).
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "9p", "afs", "orangefs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys"}
    | {"fuse.rclone", "fuse.mountpoint-s3", "fuse.blobfuse2"}
)
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


class Directory:
    """A cache directory that was checked, and made if it was not there; raises CacheDirectoryError if it is refused."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _make(self.path)
        _check_owner(self.path)
        self.file_system = file_system_of(self.path)
        if self.file_system in NETWORK_FILE_SYSTEMS:
            raise CacheDirectoryError(
                f"cache directory {self.path} is on a network file system ({self.file_system}), where locks do not "
                f"exclude other machines; {_WITHOUT_LOCKS}"
            )
        try:
            self._check_format()
            for part in (self.index, self.segments, self.manifests):
                part.mkdir(mode=0o700, exist_ok=True)
                _check_part(part)
        except OSError as error:
            raise CacheDirectoryError(
                f"cache directory {self.path} cannot be used: {error.strerror}; {_ELSEWHERE}"
            ) from error

    @property
    def index(self) -> Path:
        """The LMDB environment."""
        return self.path / "index"

    @property
    def segments(self) -> Path:
        """The segments of this directory's own tier."""
        return self.path / "segments"

    @property
    def staging(self) -> Path:
        """The segments of objects that are read once."""
        return self.path / "staging"

    @property
    def manifests(self) -> Path:
        """The stored listings."""
        return self.path / "manifests"

    @property
    def leases(self) -> str:
        """The file whose byte locks say who has which segment mapped, and who writes which."""
        return str(self.path / "leases")

    @property
    def flights(self) -> str:
        """The file whose byte locks say who is fetching what."""
        return str(self.path / "flights")

    @property
    def stats(self) -> str:
        """The file with the counters of every process."""
        return str(self.path / "stats")

    @property
    def runs(self) -> str:
        """The file with what was noted of the last epochs."""
        return str(self.path / "runs")

    @property
    def in_memory(self) -> bool:
        """Whether the file system keeps its files in memory."""
        return self.file_system in MEMORY_FILE_SYSTEMS

    @property
    def boot_file(self) -> Path:
        """Holds the boot id under which the index was last known good."""
        return self.path / "boot"

    @property
    def closed_file(self) -> Path:
        """Tells how the index's file was when the last process closed it."""
        return self.index / "closed"

    def overhead_bytes(self) -> int:
        """Return the bytes that all but the segments takes on disk, which the capacity includes; 30 us."""
        total = self.path.stat().st_blocks * 512
        for part in (self.path, self.index, self.manifests):
            with os.scandir(part) as entries:
                for entry in entries:
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    except FileNotFoundError:  # a file that was just replaced
                        continue
        return total

    def _check_format(self) -> None:
        marker = self.path / "format"
        try:
            fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            self._read_format(marker)
            return
        with os.fdopen(fd, "w") as file:
            file.write(FORMAT)
        write_private(self.path / "CACHEDIR.TAG", _TAG)

    def _read_format(self, marker: Path) -> None:
        found = marker.read_text(errors="replace")
        deadline = time.monotonic() + 1
        while (
            found != FORMAT and _is_torn(found) and time.monotonic() < deadline
        ):  # another process made the file and is about to fill it
            time.sleep(0.001)
            found = marker.read_text(errors="replace")
        if found == FORMAT:
            return
        if not _is_torn(found):
            raise CacheDirectoryError(
                f"cache directory {self.path} has the format {found.strip()!r}, this version reads {FORMAT.strip()!r}; "
                f"remove the directory or give another one"
            )
        write_private(marker, FORMAT)


def _is_torn(found: str) -> bool:
    """Tell whether a marker is ours, but not all of it was written: its maker died, or the machine lost power."""
    return len(found) <= len(FORMAT) and all(there in (ours, "\0") for there, ours in zip(found, FORMAT, strict=False))


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, whatever the umask; what is there is written over."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def _make(path: Path) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            return path.mkdir(mode=0o700, exist_ok=True)
        for parent in reversed(path.parents):
            parent.mkdir(mode=0o755, exist_ok=True)  # who can write to it could put another directory in our place
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise CacheDirectoryError(f"cache directory {path} is a file; give the path of a directory") from None
    except OSError as error:
        raise CacheDirectoryError(f"cache directory {path} cannot be made: {error.strerror}; {_ELSEWHERE}") from error


def _check_owner(path: Path) -> None:
    for info in (path.lstat(), path.stat()):  # the link, if it is one, and what it leads to
        if info.st_uid != os.geteuid() and not (stat.S_ISLNK(info.st_mode) and info.st_uid == 0):
            raise CacheDirectoryError(
                f"cache directory {path} belongs to {_user(info.st_uid)}, this process runs as {_user(os.geteuid())}; "
                f"{_ELSEWHERE}"
            )
    mode = stat.S_IMODE(path.stat().st_mode)
    writable = mode & 0o022
    try:
        if mode & 0o200 and not os.listdir(path):
            path.chmod(0o700)  # from here on nobody else puts anything in it, so look again
        names = os.listdir(path)
    except OSError as error:
        raise CacheDirectoryError(f"cache directory {path} cannot be read: {error.strerror}") from error
    if names and "format" not in names:
        raise CacheDirectoryError(
            f"cache directory {path} is not empty and not a cache of aiscache (it has no file 'format'); "
            f"give an empty or a new directory"
        )
    if writable and names:
        raise CacheDirectoryError(f"cache directory {path} can be written by others; run: chmod 700 {path}")
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        raise CacheDirectoryError(f"cache directory {path} cannot be written; run: chmod 700 {path}")


def _check_part(path: Path) -> None:
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022:
        raise CacheDirectoryError(f"{path} is not a directory that only this user can write; remove it")


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"user id {uid}"


def file_system_of(path: Path) -> str:
    """Return the type of the file system that holds `path`, as /proc/self/mountinfo spells it; "" if it is not told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    return find_file_system(lines, path=str(path.resolve()), device=path.stat().st_dev)


def find_file_system(mountinfo: Iterable[str], *, path: str, device: int) -> str:
    """Return the type of the file system with that device number, or else of the innermost mount above `path`."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    by_device, by_prefix, longest = "", "", -1
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()[0]
        mount = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if fields[2] == wanted:
            by_device = kind
        if (path + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= longest:
            by_prefix, longest = kind, len(mount)
    return by_device or by_prefix


def boot_id() -> str:
    """Return the id that the kernel made at this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
