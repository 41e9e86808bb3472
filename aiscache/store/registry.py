"""The stores that this process has open: one per directory, closed at exit, never carried across a fork.

A forked child closes what it inherited (locks, index) and opens its own when it first needs it; handles notice by
`generation()`. The unnamed cache lives in shared memory while some process uses it: each user holds a shared lock, and
who can get it alone, at the end or at the start, knows that nobody else is there and removes what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing.util
import os
import shutil
import threading
import time
from pathlib import Path

from aiscache.errors import CacheDirectoryError
from aiscache.locks import ByteLocks
from aiscache.settings import CacheSettings
from aiscache.store.directory import Directory
from aiscache.store.eviction import InUse
from aiscache.store.store import Store
from aiscache.store.tiers import make_private, user_memory_directory

_LOG = logging.getLogger("aiscache")
_USER_BYTE = 0


class _Registry:
    """The state of this process; made anew in a forked child."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.lock = threading.RLock()
        self.stores: dict[str, Store] = {}
        self.handles: dict[str, int] = {}
        self.unnamed: UnnamedCache | None = None
        self.exit_hooks = False


_registry = _Registry(0)


def generation() -> int:
    """Return a number that changes in a forked child: what was opened before it must be opened again."""
    return _registry.generation


def lock() -> threading.RLock:
    """Return the lock of opening and closing: one that no thread of a parent can have left locked in a forked child."""
    return _registry.lock


def unnamed_path() -> Path:
    """Return where the unnamed cache lies."""
    return user_memory_directory() / "unnamed"


def acquire(settings: CacheSettings, *, in_use: InUse) -> Store:
    """Return this process's store for the settings' directory; `release` it when done."""
    with _registry.lock:
        path = settings.path or str(_hold_unnamed().path)
        store = _registry.stores.get(path)
        if store is None:
            store = _open(path, settings, in_use=in_use)
            _registry.stores[path] = store
            _hook_exit()
        _registry.handles[path] = _registry.handles.get(path, 0) + 1
        return store


def store_at(path: str) -> Store:
    """Return this process's store for a directory, opened if it was not: for what other processes tell us of it."""
    with _registry.lock:
        store = _registry.stores.get(path)
    if store is None:
        named = None if path == str(unnamed_path()) else path
        store = acquire(CacheSettings(path=named), in_use=lambda records: [True] * len(records))
    return store


def release(store: Store) -> None:
    """Say that one user of the store is done; the last one closes it."""
    with _registry.lock:
        path = next((path for path, other in _registry.stores.items() if other is store), None)
        if path is None:
            return
        _registry.handles[path] -= 1
        if _registry.handles[path] == 0:
            _close(path)


class UnnamedCache:
    """A share in the unnamed cache: while anybody on the machine has one, it stays."""

    def __init__(self) -> None:
        self.path = unnamed_path()
        self._lock_path = self.path.with_name("unnamed.lock")
        self._locks = self._join()

    def leave(self) -> None:
        """Give the share back; the last one out removes the cache.

        Two leave at once: who asks for the lock alone while both still share it does not get it, and neither would
        remove anything. So each gives its share back first: the last one to ask then gets the lock, unless somebody
        else was faster and removed the file that is locked.
        """
        self._locks.unlock(_USER_BYTE)
        if self._locks.try_exclusive(_USER_BYTE) and self._is_current(self._locks):
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock_path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody joins, or a memory tier is there
                self.path.parent.rmdir()
        self._locks.close()

    def forget(self) -> None:
        """Close an inherited descriptor; the share is the parent's."""
        self._locks.close()

    def _join(self) -> ByteLocks:
        """Take a share.

        1. We open the lock file. 2. The last user removes it. 3. We lock what has no name any more. So look again after
        locking whether the name still leads to what is locked.
        """
        while True:
            try:
                make_private(self.path.parent)
                locks = ByteLocks(str(self._lock_path))
            except FileNotFoundError:  # the last user removes it, just now
                if self.path.parent.parent.is_dir():
                    continue
                raise CacheDirectoryError(
                    f"the unnamed cache needs shared memory in {self.path.parent.parent}, which is not there; name a "
                    f"directory with Cache(path) or AISCACHE_DIR"
                ) from None
            except OSError as error:
                raise CacheDirectoryError(
                    f"the unnamed cache needs shared memory in {self.path.parent.parent}: {error.strerror}; name a "
                    f"directory with Cache(path) or AISCACHE_DIR"
                ) from error
            if locks.try_exclusive(_USER_BYTE) and self._is_current(locks):
                shutil.rmtree(self.path, ignore_errors=True)  # left by a crash
            if locks.try_shared(_USER_BYTE) and self._is_current(locks):
                return locks
            locks.close()
            time.sleep(0.001)  # somebody removes it, just now

    def _is_current(self, locks: ByteLocks) -> bool:
        try:
            return os.path.samestat(os.stat(self._lock_path), locks.stat())
        except FileNotFoundError:
            return False


def _open(path: str, settings: CacheSettings, *, in_use: InUse) -> Store:
    try:
        return Store(
            Directory(path),
            capacity_bytes=settings.capacity_bytes,
            memory_bytes=settings.memory_bytes,
            verify_reads=settings.verify == "read",
            in_use=in_use,
        )
    except BaseException:
        if settings.path is None:
            _leave_unnamed()
        raise


def _leave_unnamed() -> None:
    unnamed, _registry.unnamed = _registry.unnamed, None
    if unnamed is not None:
        unnamed.leave()


def _hold_unnamed() -> UnnamedCache:
    if _registry.unnamed is None:
        _registry.unnamed = UnnamedCache()
    return _registry.unnamed


def _close(path: str) -> None:
    store = _registry.stores.pop(path)
    _registry.handles.pop(path, None)
    try:
        store.close()
    finally:
        if _registry.unnamed is not None and path == str(_registry.unnamed.path):
            _leave_unnamed()


def _close_all() -> None:
    with _registry.lock:
        for path in list(_registry.stores):
            try:
                _close(path)
            except Exception as error:
                _LOG.warning("cannot close the cache in %s: %s", path, str(error))
        _leave_unnamed()


def _hook_exit() -> None:
    """Close at exit: `atexit` for ordinary processes, `Finalize` for multiprocessing's, which do not run `atexit`."""
    if not _registry.exit_hooks:
        _registry.exit_hooks = True
        atexit.register(_close_all)
        multiprocessing.util.Finalize(None, _close_all, exitpriority=0)


def _before_fork() -> None:
    _registry.lock.acquire()
    for store in _registry.stores.values():
        store.before_fork()


def _after_fork_in_parent() -> None:
    for store in _registry.stores.values():
        store.after_fork_in_parent()
    _registry.lock.release()


def _after_fork_in_child() -> None:
    global _registry
    inherited, _registry = _registry, _Registry(_registry.generation + 1)
    for store in inherited.stores.values():
        store.after_fork_in_child()
    if inherited.unnamed is not None:
        inherited.unnamed.forget()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
