"""The samples of all shards of a listing: `Members`, one file beside the manifest, shared by all processes.

    prefix   magic, format, rows, xxh3_64 of the table
    table    per shard: offset, length, samples, xxh3_64 of its block (all 0: not looked into yet)
    blocks   a `ShardIndex` each

The file is written under a temporary name and renamed, and never changed: whoever knows more shards writes it anew.
Nothing in it is trusted or unpickled. A damaged file, or none, costs another look into the shards, which the cache has.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
import xxhash

from aiscache.datasets.shard_index import ShardIndex
from aiscache.errors import CacheError, ManifestError
from aiscache.locks import ByteLocks
from aiscache.manifest import Manifest
from aiscache.manifest.store import MEMBERS_SUFFIX, SUFFIX, Room

_TEMPORARY = ".members-"
_MAGIC = b"AISCMEMB"
_FORMAT = 1
_PREFIX = Struct("<8sQQQ")
_COLUMNS = 4
_MOST_OPEN = 4096
_SAVE_WAIT_S = 10.0
_STALE_S = 3600.0

_log = logging.getLogger("aiscache")

Table = np.ndarray[Any, np.dtype[np.uint64]]


class Members:
    """What is known of the shards of a manifest. Pickles as the manifest, where that lies in a file."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._path = manifest.path.removesuffix(SUFFIX) + MEMBERS_SUFFIX if manifest.path else ""
        self._data: memoryview = memoryview(b"")
        self._table: Table = np.zeros((len(manifest), _COLUMNS), np.uint64)
        self._opened: dict[int, ShardIndex] = {}
        self._new: dict[int, ShardIndex] = {}
        self._inode = 0
        self._load()

    def get(self, row: int) -> ShardIndex | None:
        """Return the index of a shard, None if nobody has looked into it yet."""
        found = self._new.get(row)
        found = self._opened.get(row) if found is None else found  # one without samples is false, and known
        if found is None and self._table.item(row, 1):
            found = self._read(row)
            if len(self._opened) >= _MOST_OPEN:
                self._opened.clear()
            if found is not None:
                self._opened[row] = found
        return found

    def add(self, row: int, index: ShardIndex) -> None:
        """Take note of a shard's samples; other processes know of them after `save`."""
        self._new[row] = index

    def forget(self, row: int) -> None:
        """Drop what is known of a shard: it was found to be wrong."""
        self._table = self._table.copy()
        self._table[row] = 0
        self._opened.pop(row, None)
        self._new.pop(row, None)

    def counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the number of samples of each shard, -1 where it is not known."""
        counts = np.where(self._table[:, 1] > 0, self._table[:, 2].astype(np.int64), -1)
        for row, index in self._new.items():
            counts[row] = len(index)
        return counts

    def missing(self) -> list[int]:
        """Return the rows whose samples are not known."""
        if self._path and (self.counts() < 0).any():
            self._load()
        rows: list[int] = np.flatnonzero(self.counts() < 0).tolist()
        return rows

    def save(self, *, room: Room = lambda size_bytes: contextlib.nullcontext(True)) -> None:
        """Write what is new, together with what others have written; trouble with the file is logged and no more.

        `room(size in bytes)` tells in a `with` whether a file of that size may be written.
        """
        if not self._new or not self._path:
            return
        try:
            with self.turn(wait_s=_SAVE_WAIT_S):
                self._load()
                self._write(room)
            self._load()
        except (OSError, ManifestError, CacheError) as error:
            _log.warning(
                "what was found in the shards cannot be kept in %s (%s): each process looks into them itself",
                self._path,
                str(error),
            )

    @contextlib.contextmanager
    def turn(self, *, wait_s: float, building: bool = False) -> Iterator[None]:
        """Be the only process that writes this file (or looks into its shards); past `wait_s` go on anyhow."""
        if not self._path:
            yield
            return
        locks = ByteLocks(os.path.join(os.path.dirname(self._path), "members"))
        offset = xxhash.xxh3_64_intdigest(os.fsencode(self._path)) >> 2 & ~1 | building
        try:
            locks.wait_exclusive(offset, timeout_s=wait_s)
            yield
        finally:
            with contextlib.suppress(OSError):
                locks.unlock(offset)  # a child forked meanwhile has the descriptor too
            locks.close()

    def __getstate__(self) -> tuple[Manifest, dict[int, bytes]]:
        return self._manifest, {row: bytes(index.block) for row, index in self._new.items()}

    def __setstate__(self, state: tuple[Manifest, dict[int, bytes]]) -> None:
        manifest, new = state
        self.__init__(manifest)  # type: ignore[misc]
        self._new = {row: ShardIndex(memoryview(block)) for row, block in new.items()}

    # ---- the file

    def _load(self) -> None:
        """Map the file as it is now; one that is not there, or is damaged, tells nothing.

        One that is mapped already is not read again: what was found to be wrong in it stays forgotten.
        """
        if not self._path:
            return
        try:
            if os.stat(self._path).st_ino == self._inode:
                return
            data, inode = _map(self._path)
            self._table = _checked_table(data, rows=len(self._manifest), path=self._path)
            self._data, self._inode = data, inode
            self._opened.clear()
        except FileNotFoundError:
            return
        except (OSError, ValueError, ManifestError) as error:
            _log.warning("%s; looking into the shards again", str(error))

    def _read(self, row: int) -> ShardIndex | None:
        offset, length, samples, digest = self._table[row].tolist()
        block = self._data[offset : offset + length]
        with contextlib.suppress(ManifestError):
            if xxhash.xxh3_64_intdigest(block) == digest:
                index = ShardIndex(block)
                if len(index) == samples:
                    return index
        _log.warning("%s is damaged at row %d; looking into the shard again", self._path, row)
        self.forget(row)
        return None

    def _write(self, room: Room) -> None:
        table = np.zeros((len(self._manifest), _COLUMNS), "<u8")
        offset, blocks = _PREFIX.size + table.nbytes, []
        for row in range(len(table)):
            index = self.get(row)
            if index is not None:
                length = len(index.block)
                table[row] = offset, length, len(index), xxhash.xxh3_64_intdigest(index.block)
                blocks.append(index.block)
                offset += length
        head = _PREFIX.pack(_MAGIC, _FORMAT, len(table), xxhash.xxh3_64_intdigest(table.tobytes()))
        with room(offset) as fits:
            if not fits:
                raise ManifestError("the cache is full")
            self._write_new([head, table.tobytes(), *blocks])
        self._new.clear()
        _tidy(Path(self._path).parent)

    def _write_new(self, parts: list[bytes | memoryview]) -> None:
        temporary = os.path.join(os.path.dirname(self._path), f"{_TEMPORARY}{os.getpid()}-{time.monotonic_ns()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "wb") as file:
                file.writelines(parts)
            os.rename(temporary, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _map(path: str) -> tuple[memoryview, int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ)), os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _checked_table(data: memoryview, *, rows: int, path: str) -> Table:
    """Return the table of a file, every place in it held against the file's length."""
    end = _PREFIX.size + 8 * _COLUMNS * rows
    if len(data) < end:
        raise ManifestError(f"{path} is damaged: {len(data)} bytes")
    magic, number, count, digest = _PREFIX.unpack_from(data)
    if (magic, number, count) != (_MAGIC, _FORMAT, rows):
        raise ManifestError(f"{path} is not an index of the members of {rows} shards in format {_FORMAT}")
    if xxhash.xxh3_64_intdigest(data[_PREFIX.size : end]) != digest:
        raise ManifestError(f"{path} is damaged: its table is not what was written")
    table: Table = np.frombuffer(data, "<u8", _COLUMNS * rows, _PREFIX.size).reshape(rows, _COLUMNS)
    if rows and (table[:, 0] > len(data)).any() | (table[:, 1] > len(data) - table[:, 0]).any():
        raise ManifestError(f"{path} is damaged: a block lies outside of it")
    return table


def _tidy(directory: Path) -> None:
    """Remove files of manifests that are gone, and what killed writers left."""
    for file in [*directory.glob(f"*{MEMBERS_SUFFIX}"), *directory.glob(f"{_TEMPORARY}*")]:
        with contextlib.suppress(OSError):
            stale = time.time() - file.stat().st_mtime > _STALE_S
            if stale if file.name.startswith(_TEMPORARY) else not file.with_suffix(SUFFIX).exists():
                file.unlink()
