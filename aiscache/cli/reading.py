"""The index and the segments of a cache, read by somebody who is not one of its users."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from aiscache.store.directory import MEMORY_FILE_SYSTEMS
from aiscache.store.index import DISK, MEMORY, Index
from aiscache.store.names import segment_name
from aiscache.store.tiers import memory_tier

TIER_NAMES = {MEMORY: "memory", DISK: "disk"}


class ReadOnlyIndex(Index):
    """The index as it is, without a right to change it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._writing = threading.RLock()
        # max_readers as in Index: the first opener decides for those who come while it has the index open
        self._env = lmdb.open(str(path), readonly=True, create=False, max_dbs=3, max_readers=4096, readahead=False)
        try:
            self.entries, self._segments, self._meta = (
                self._env.open_db(name, create=False) for name in (b"entries", b"segments", b"meta")
            )
        except lmdb.Error:
            self._env.close()
            raise


@contextmanager
def opened_index(cache: Path) -> Iterator[ReadOnlyIndex]:
    """Open the index of a cache directory; lmdb.Error if it is being made."""
    index = ReadOnlyIndex(cache / "index")
    try:
        yield index
    finally:
        index.close()


def segment_file(cache: Path, segment_id: int, tier: int, *, file_system: str) -> Path:
    """Return where a segment's file is, in a cache directory on that file system."""
    is_home = tier == DISK or file_system in MEMORY_FILE_SYSTEMS
    return (cache / "segments" if is_home else memory_tier(cache)) / segment_name(segment_id)
