"""The index: one LMDB environment per cache directory.

    entries   key (16 bytes)    -> where the object's bytes are, and of which version
    segments  segment id        -> tier, state, bytes reserved on disk
    meta      name              -> capacity, bytes reserved per tier, next segment id

The index can be rebuilt from the segments. It is opened without `writemap` (a full file system would be a SIGBUS) and
without `sync` (after a power loss it is rebuilt); a killed process leaves it consistent. It is never used across a
fork: the child closes it and opens its own (py-lmdb refuses a second open of one path in a process).

Transactions of this process begin and end under a lock of ours, so that a fork and `close` can wait for them: LMDB must
not be closed, here or in a child, in the middle of one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import lmdb

from aiscache.uninterrupted import Uninterrupted

ENTRY = Struct("<QQQQQ")
_ROW = Struct("<BBxxxxxxQQ")
_ID = Struct(">Q")  # big-endian, so that LMDB's order is the order of making
_NUMBER = Struct("<Q")

OPEN, SEALED, DOOMED, SUSPECT = 1, 2, 3, 4
MEMORY, DISK, STAGING = 0, 1, 2  # the numbers of the tiers; staging is for segments that are read once
LAST_SEGMENT_ID = (1 << 60) - 1
_MOST_BYTES = 1 << 56  # sums of many such numbers still fit into a row

ROWS = {b"entries": (16, ENTRY.size), b"segments": (_ID.size, _ROW.size), b"meta": (0, _NUMBER.size)}
"""The bytes of a key (0: any) and of a value of each table."""

_MAX_READERS = 4096
_READER_BYTES, _LOCK_HEADER_BYTES = 64, 256
_READERS = max(120, 4 * (os.cpu_count() or 1))  # at once; a process is one for some microseconds at a time


_open_lock_files: set[tuple[int, int]] = set()  # device and inode


class Entry(NamedTuple):
    """Where one object lies: byte range of a segment, xxh64 of the payload, digest of the version."""

    segment: int
    payload: int
    length: int
    checksum: int
    digest: int


class SegmentRow(NamedTuple):
    """What the index knows of one segment.

    State: OPEN (has or had a writer), SEALED, DOOMED (being removed), SUSPECT (sealed before an unclean boot: its
    payloads are verified when read). `reserved` and `dead` are bytes: taken on disk, and taken by nothing of use.
    """

    tier: int
    state: int
    reserved: int
    dead: int = 0


class Index:
    """The tables, in the caller's transactions: `read()` and `write()` give one, the methods take it."""

    _lock_file = (0, 0)  # device and inode of LMDB's lock file, where we saw to its space

    def __init__(self, path: Path, *, map_bytes: int) -> None:
        self.path = path
        self._file = path / "data.mdb"
        self._lock_file = _allocate_readers(path / "lock.mdb")
        self._env = lmdb.open(
            str(path),
            map_size=map_bytes,
            max_dbs=3,
            max_readers=_MAX_READERS,
            max_spare_txns=0,  # a spare read transaction keeps its slot in the reader table
            sync=False,
            metasync=False,
            readahead=False,
            meminit=False,
            mode=0o600,
        )
        _open_lock_files.add(self._lock_file)
        self.forget_dead_readers()
        self.entries = self._env.open_db(b"entries")
        self._segments = self._env.open_db(b"segments")
        self._meta = self._env.open_db(b"meta")
        self._reading = threading.Lock()
        self._writing = threading.RLock()

    def close(self) -> None:
        """Close the environment when the transactions of other threads have ended."""
        with self._writing, self._reading:
            self._env.close()
            _open_lock_files.discard(self._lock_file)

    def size_bytes(self) -> int:
        """Return what the data file takes on disk; 4 us."""
        return os.stat(self._file).st_blocks * 512

    def make_whole(self) -> bool:
        """Make the data file as long as its last page asks for; return whether it was shorter."""
        with self.write():
            wanted = self._bytes_asked_for()
            short = self._file.stat().st_size < wanted
            if short:
                os.truncate(self._file, wanted)
        return short

    def is_whole(self) -> bool:
        """Tell whether the data file is as long as its last page asks for; False where that cannot be told."""
        try:
            return self._file.stat().st_size >= self._bytes_asked_for()
        except (OSError, lmdb.Error):
            return False

    def _bytes_asked_for(self) -> int:
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def check(self) -> None:
        """Raise lmdb.CorruptedError if the rows do not fit together: what a segment is, and the totals of each tier."""
        with self.read() as transaction:
            rows = self.segments(transaction)
            for tier in (MEMORY, DISK, STAGING):
                known = sum(row.reserved for row in rows.values() if row.tier == tier)
                if self.reserved(transaction, tier) != known:
                    raise lmdb.CorruptedError(f"damaged: tier {tier} has {known} bytes in its segments")
            if any(row.tier > STAGING or not OPEN <= row.state <= SUSPECT for row in rows.values()):
                raise lmdb.CorruptedError("damaged: a segment of no kind")
            if any(max(row.reserved, row.dead) > _MOST_BYTES for row in rows.values()):
                raise lmdb.CorruptedError("damaged: the size of a segment")
            if max([*rows, self.number(transaction, b"next_segment")], default=0) > LAST_SEGMENT_ID:
                raise lmdb.CorruptedError("damaged: the number of a segment")

    def walk(self) -> None:
        """Read every row of every table; lmdb.CorruptedError if there is a page that is none."""
        with self.read() as transaction:
            for table in (self.entries, self._segments, self._meta):
                with transaction.cursor(db=table) as cursor:
                    for _ in cursor:
                        pass

    def forget_dead_readers(self) -> None:
        """Free the reader slots of processes that were killed while reading: each keeps old pages from being used."""
        self._env.reader_check()

    @contextmanager
    def write(self) -> Iterator[Any]:
        """Give a write transaction: all of it, or nothing if the block raises; 10 us."""
        with Uninterrupted(), self._writing, self._begin(write=True) as transaction:
            yield transaction

    @contextmanager
    def read(self) -> Iterator[Any]:
        """Give a read transaction; keep it short, as it keeps pages from being used again."""
        with Uninterrupted(), self._reading, self._begin(write=False) as transaction:
            yield transaction

    def value(self, key: bytes) -> bytes | None:
        """Return the packed entry of a key; 2.5 us."""
        with self._reading:
            try:
                transaction = self._env.begin(self.entries)
            except (lmdb.MapResizedError, lmdb.ReadersFullError):
                transaction = self._begin(write=False, db=self.entries)
            value: bytes | None = transaction.get(key)
            transaction.abort()
        if value is not None and len(value) != ENTRY.size:
            raise _wrong_length(value)
        return value

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the packed entry of each key; 2 us for the transaction and 0.8 us for each key."""
        with self._reading, self._begin(write=False, db=self.entries) as transaction:
            values: list[bytes | None] = list(map(transaction.get, keys))
        if not _ENTRY_SIZES.issuperset(map(len, filter(None, values))):
            raise _wrong_length(next(value for value in values if value and len(value) != ENTRY.size))
        return values

    def before_fork(self) -> None:
        """Wait until this process has no transaction open, and open none until `after_fork`."""
        self._writing.acquire()
        self._reading.acquire()

    def after_fork(self) -> None:
        """Let transactions begin again, in the parent; in the child too, where the next step is `close`."""
        self._reading.release()
        self._writing.release()

    def _begin(self, *, write: bool, db: Any = None) -> Any:
        try:
            return self._env.begin(db, write=write)
        except lmdb.MapResizedError:  # another process opened the index with a larger map and filled it
            self._env.set_mapsize(0)
            return self._env.begin(db, write=write)
        except lmdb.ReadersFullError:  # perhaps of processes that were killed while they read
            self.forget_dead_readers()
            return self._env.begin(db, write=write)

    def entry(self, transaction: Any, key: bytes) -> Entry | None:
        """Return the entry of a key."""
        value = transaction.get(key, db=self.entries)
        return None if value is None else Entry._make(_unpack(ENTRY, value))

    def put_entry(self, transaction: Any, key: bytes, entry: Entry) -> Entry | None:
        """Set the entry of a key; return the one that it replaces."""
        before = self.entry(transaction, key)
        transaction.put(key, ENTRY.pack(*entry), db=self.entries)
        return before

    def delete_entry(self, transaction: Any, key: bytes) -> None:
        """Forget a key."""
        transaction.delete(key, db=self.entries)

    def count(self, transaction: Any) -> int:
        """Return the number of entries."""
        return int(transaction.stat(self.entries)["entries"])

    def segment(self, transaction: Any, segment_id: int) -> SegmentRow | None:
        """Return the row of a segment."""
        value = transaction.get(_ID.pack(segment_id), db=self._segments)
        return None if value is None else SegmentRow(*_unpack(_ROW, value))

    def segments(self, transaction: Any) -> dict[int, SegmentRow]:
        """Return all rows, oldest segment first."""
        with transaction.cursor(db=self._segments) as cursor:
            return {_unpack(_ID, key)[0]: SegmentRow._make(_unpack(_ROW, value)) for key, value in cursor}

    def has_segments(self, transaction: Any) -> bool:
        """Tell whether there is any row of a segment."""
        return bool(transaction.stat(self._segments)["entries"])

    def put_segment(self, transaction: Any, segment_id: int, row: SegmentRow | None) -> None:
        """Set or (None) forget a segment's row, and keep the tier's total of reserved bytes."""
        before = self.segment(transaction, segment_id)
        for sign, changed in ((-1, before), (1, row)):
            if changed is not None:
                total = self.reserved(transaction, changed.tier) + sign * changed.reserved
                self._put_number(transaction, _reserved_name(changed.tier), total)
        if row is None:
            transaction.delete(_ID.pack(segment_id), db=self._segments)
        else:
            value = _ROW.pack(row.tier, row.state, row.reserved, row.dead)
            transaction.put(_ID.pack(segment_id), value, db=self._segments)

    def add_dead(self, transaction: Any, segment_id: int, size: int) -> None:
        """Note that bytes of a segment are of no use any more."""
        row = self.segment(transaction, segment_id)
        if row is not None:
            self.put_segment(transaction, segment_id, SegmentRow(row.tier, row.state, row.reserved, row.dead + size))

    def reserved(self, transaction: Any, tier: int) -> int:
        """Return the bytes reserved by all segments of a tier."""
        return self.number(transaction, _reserved_name(tier))

    def number(self, transaction: Any, name: bytes) -> int:
        """Return a number of the meta table, 0 if it was never set."""
        value = transaction.get(name, db=self._meta)
        return 0 if value is None else int(_unpack(_NUMBER, value)[0])

    def set_number(self, name: bytes, value: int) -> None:
        """Set a number of the meta table in a transaction of its own."""
        with self.write() as transaction:
            self._put_number(transaction, name, value)

    def next_segment_id(self, transaction: Any) -> int:
        """Return an id that no segment of this directory ever had, even if the index was lost in between.

        A process may still have an old segment mapped: an id that comes again would show it other bytes. Ids count
        up from the time when the index was made, in units that no cache can use up.
        """
        following = self.number(transaction, b"next_segment") or int(time.time() * 1000) << 16
        self._put_number(transaction, b"next_segment", following + 1)
        return following

    def skip_segment_ids(self, transaction: Any, highest: int) -> None:
        """Give out no id up to `highest` from here on."""
        following = max(highest + 1, self.next_segment_id(transaction))
        self._put_number(transaction, b"next_segment", following)

    def drop_all(self, transaction: Any) -> None:
        """Forget all entries."""
        transaction.drop(self.entries, delete=False)

    def _put_number(self, transaction: Any, name: bytes, value: int) -> None:
        transaction.put(name, _NUMBER.pack(value), db=self._meta)


def _unpack(layout: Struct, value: bytes) -> tuple[int, ...]:
    if len(value) != layout.size:
        raise _wrong_length(value)
    return layout.unpack(value)


_ENTRY_SIZES = frozenset({ENTRY.size})


def _wrong_length(value: bytes) -> lmdb.Error:
    return lmdb.CorruptedError(f"damaged: a row of {len(value)} bytes")


def _reserved_name(tier: int) -> bytes:
    return b"reserved/%d" % tier


def _allocate_readers(path: Path) -> tuple[int, int]:
    """Make sure of the space for the table of readers: LMDB maps that file, and only makes it long enough.

    On a full file system the first touch of one of its pages would be a SIGBUS. Returns device and inode.

    Never while this process has the environment open: LMDB's locks on this file are of the kind that a process loses
    when it closes any descriptor of the file, and who then opens the environment finds nobody there, and makes the
    mutexes anew under those who use them.
    """
    with contextlib.suppress(FileNotFoundError):
        told = path.stat()
        if (told.st_dev, told.st_ino) in _open_lock_files:
            return told.st_dev, told.st_ino
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        told = os.fstat(fd)
        wanted = _LOCK_HEADER_BYTES + _READERS * _READER_BYTES
        os.posix_fallocate(fd, 0, min(wanted, told.st_size or wanted))  # its length is LMDB's to say
    finally:
        os.close(fd)
    return told.st_dev, told.st_ino
