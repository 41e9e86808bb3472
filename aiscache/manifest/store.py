"""Where manifests are kept and shared: `ManifestStore`, a directory of `<identity>-<content>.manifest` files.

A file is written under a temporary name and then renamed; it is never changed. Its modification time says when the
listing began that found this content last. Processes that start together list once or twice, not once each:

    1. rank A asks at 0.0 s, takes the lock of the identity, and lists from 0.1 s on
    2. rank B asks at 0.5 s and waits for the lock: A's listing may miss what was put between 0.1 s and 0.5 s
    3. B gets the lock, finds nothing that began after 0.5 s, and lists from 0.9 s on
    4. ranks C to Z asked before 0.9 s too: they find B's listing, which began after they asked, and take it
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

from aiscache.errors import CacheError, ManifestError
from aiscache.locks import ByteLocks
from aiscache.manifest.draft import Draft, content_hash
from aiscache.manifest.manifest import Manifest

SUFFIX = ".manifest"
MEMBERS_SUFFIX = (
    ".members"  # of the index of shards that datasets keep beside a manifest; it goes when the manifest goes
)
_LOCKS = "listings"
_TEMPORARY = ".writing-"
_STALE_S = 30 * 86_400  # a manifest that nobody uses and nobody lists any more is removed after this time
_LOCK_BITS = 62
_NEVER_NS = 1 << 63

_log = logging.getLogger("aiscache")

Room = Callable[[int], contextlib.AbstractContextManager[bool]]


class ManifestStore:
    """The manifests of one directory. Any number of processes may use it; nothing is held between calls.

    `room(size in bytes)` tells in a `with` whether a file of that size may be written.
    """

    def __init__(self, directory: str, *, room: Room | None = None) -> None:
        self.directory = os.path.abspath(directory)
        self._room = room or (lambda size_bytes: contextlib.nullcontext(True))

    def load_or_build(
        self,
        identity: str,
        build: Callable[[], Draft],
        *,
        max_age_s: float = 0.0,
        wait_s: float = 300.0,
        on_shrink: str = "warn",
    ) -> Manifest:
        """Return a manifest of what is on the cluster now, or up to `max_age_s` ago.

        Calls `build` unless another process did so in time. `identity` "" names nothing, so it always builds. A listing
        that is shorter than the one before (a target may be down: such listings are silently short) is warned about, or
        with `on_shrink="error"` a ManifestError. Trouble with the directory is warned about, and the manifest lives
        in this process only then; errors of `build` are the caller's.
        """
        asked_ns = time.time_ns()
        since_ns = asked_ns - int(max(max_age_s, 0.0) * 1e9)
        if max_age_s > 0 and (found := self._newest(identity, since_ns=since_ns)) is not None:
            return found
        with self._turn(identity, wait_s=wait_s):
            if (found := self._newest(identity, since_ns=since_ns)) is not None:
                return found
            before = len(self._newest(identity) or ())  # not held on to: its file may go when the new one is there
            started_ns = time.time_ns()
            draft = build()
            if len(draft) < before:
                _shrunk(draft, before=before, on_shrink=on_shrink)
            return self._keep(identity, draft.parts(), started_ns=started_ns)

    def stored(self, identity: str) -> Manifest | None:
        """Return the manifest whose listing began last, however long ago; None if there is none. Nothing is listed."""
        return self._newest(identity)

    def clear(self) -> None:
        """Remove the stored listings that no process has open."""
        for _, path in self._stored(""):
            _remove_unused(path)

    # ---- taking turns

    @contextlib.contextmanager
    def _turn(self, identity: str, *, wait_s: float) -> Iterator[None]:
        """Be the only one to list this identity; past `wait_s`, or without a directory, go on anyhow."""
        locks: ByteLocks | None = None
        offset = int(identity or "0", 16) % (1 << _LOCK_BITS)
        try:
            if identity:
                with contextlib.suppress(OSError):
                    os.makedirs(self.directory, mode=0o700, exist_ok=True)
                    locks = ByteLocks(os.path.join(self.directory, _LOCKS))
                    if not locks.wait_exclusive(offset, timeout_s=wait_s):
                        _log.warning("another process has been listing for %.0f s; listing too", wait_s)
            yield
        finally:
            if locks is not None:
                # A child forked meanwhile has the descriptor too: closing ours would not free the lock.
                with contextlib.suppress(OSError):
                    locks.unlock(offset)
                locks.close()

    # ---- files

    def _newest(self, identity: str, *, since_ns: int = 0) -> Manifest | None:
        """Return the stored manifest whose listing began last, if that is not before `since_ns`."""
        if not identity:
            return None
        # A time to come is that of a clock that was set back since: such a manifest may be of any age.
        until_ns = time.time_ns() if since_ns else _NEVER_NS
        stored = [(began_ns, path) for began_ns, path in self._stored(identity) if since_ns <= began_ns <= until_ns]
        for _, path in sorted(stored, reverse=True):
            try:
                return Manifest.open(path)
            except ManifestError as error:
                _log.warning("%s; listing again", str(error))  # not the error itself: it holds on to frames
                _remove_unused(path)
        return None

    def _stored(self, identity: str) -> list[tuple[int, str]]:
        found = []
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(identity) and entry.name.endswith(SUFFIX):
                    with contextlib.suppress(OSError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
        return found

    def _keep(self, identity: str, parts: Sequence[bytes | bytearray | memoryview], *, started_ns: int) -> Manifest:
        """Store and open; what cannot be stored is kept in the heap."""
        content = content_hash(parts)
        name = f"{identity or content}-{content}{SUFFIX}"
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            manifest = self._write(name, parts, started_ns=started_ns)
        except (OSError, ManifestError, CacheError) as error:
            warnings.warn(
                f"the listing cannot be kept in {self.directory} ({error}); each process of this dataset holds its own",
                UserWarning,
                stacklevel=3,
            )
            return Manifest.of_bytes(b"".join(parts))
        self._tidy(identity, manifest.path)
        return manifest

    def _write(self, name: str, parts: Sequence[bytes | bytearray | memoryview], *, started_ns: int) -> Manifest:
        path = os.path.join(self.directory, name)
        times = (time.time_ns(), started_ns)
        with contextlib.suppress(OSError, ManifestError):
            # The name tells the content: if it is there, it is the same, unless it is damaged.
            found = Manifest.open(path)
            os.utime(path, ns=times)
            return found
        with self._room(sum(map(len, parts))) as fits:
            if not fits:
                raise ManifestError("the cache is full")
            self._write_new(path, parts, times=times)
        return Manifest.open(path, verify=False)

    def _write_new(self, path: str, parts: Sequence[bytes | bytearray | memoryview], *, times: tuple[int, int]) -> None:
        temporary = os.path.join(self.directory, f"{_TEMPORARY}{os.getpid()}-{time.monotonic_ns()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                fcntl.flock(fd, fcntl.LOCK_EX)
                file.writelines(parts)
                file.flush()
                os.utime(fd, ns=times)
                os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _tidy(self, identity: str, keep: str) -> None:
        """Remove what nobody uses: older manifests of this identity, very old ones of any, and torn files."""
        long_ago_ns = time.time_ns() - int(_STALE_S * 1e9)
        for began_ns, path in self._stored(""):
            same = bool(identity) and os.path.basename(path).startswith(identity)
            if path != keep and (same or began_ns < long_ago_ns):
                _remove_unused(path)
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY):
                    _remove_unused(entry.path)


def open_manifests(directory: str) -> list[Manifest]:
    """Return the manifests of a directory that some process, this one included, has open now."""
    held = []
    for _, path in sorted(ManifestStore(directory)._stored("")):
        if _is_used(path):
            with contextlib.suppress(ManifestError):
                held.append(Manifest.open(path, verify=False))
    return held


def _is_used(path: str) -> bool:
    """Whether a process holds the file's lock; a file that went away meanwhile is not used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _remove_unused(path: str) -> None:
    """Unlink a file unless somebody has it open; the lock is held meanwhile, so nobody can begin to use it."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            if path.endswith(SUFFIX):
                os.unlink(path.removesuffix(SUFFIX) + MEMBERS_SUFFIX)
        finally:
            os.close(fd)


def _shrunk(draft: Draft, *, before: int, on_shrink: str) -> None:
    now = len(draft)
    buckets = ", ".join(f"{source.provider}://{source.bucket}" for source in draft.sources)
    text = (
        f"the listing of {buckets} has {now:,} objects, it had {before:,} before; if none were deleted, a target of "
        "the cluster may be down or rebalancing (its listings are then short)"
    )
    if on_shrink == "error":
        raise ManifestError(text, before=before, now=now)
    warnings.warn(text, UserWarning, stacklevel=4)
