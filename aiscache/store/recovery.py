"""Opening an index that can be trusted, and rebuilding one from the segments.

The segments are the truth: each record carries its key, identity, version and checksums. The index is rebuilt when LMDB
cannot open it, when it is gone, and after a boot at which it may not have reached the disk (it is not synced). After
such a boot the segments' payloads may not have reached the disk either: the segments are then SUSPECT, and what is
read from them is verified on each read until `verify` has looked at all of it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from aiscache.errors import CacheError
from aiscache.keys import key_of_identity
from aiscache.locks import ByteLocks
from aiscache.store.directory import Directory, boot_id, write_private
from aiscache.store.index import OPEN, ROWS, SUSPECT, Entry, Index, SegmentRow
from aiscache.store.names import MAINTENANCE_BYTE, USERS_BYTE, WRITER_BYTE, has_header, segment_id_of
from aiscache.store.pages import check_pages
from aiscache.store.record import COMMITTED, Record, walk
from aiscache.store.tiers import Tier

_LOG = logging.getLogger("aiscache")

_PATIENCE_S = 60.0
_SWEEP_S = 5.0  # longer than any sweep of one segment
_UNREADABLE = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.VersionMismatchError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
)


@contextlib.contextmanager
def maintenance(leases: ByteLocks) -> Iterator[None]:
    """Hold the lock of those who make or remake the index; CacheError if another process holds it for a minute."""
    if not leases.wait_exclusive(MAINTENANCE_BYTE, timeout_s=_PATIENCE_S):
        raise CacheError(f"another process has been repairing {leases.path} for {_PATIENCE_S:.0f} s; try again later")
    try:
        yield
    finally:
        leases.unlock(MAINTENANCE_BYTE)


def open_index(directory: Directory, leases: ByteLocks, *, map_bytes: int) -> tuple[Index, bool]:
    """Return the index, and whether it was made anew as it was no good; the caller holds `maintenance`.

    Who has the index open shares a lock. Who can get it alone looks whether the file is whole, if it is not as the last
    user left it: others found it so before, and go on changing it.
    """
    alone = leases.try_exclusive(USERS_BYTE)
    try:
        return _open_index(directory, map_bytes=map_bytes, alone=alone)
    finally:
        leases.try_shared(USERS_BYTE)


def close_index(index: Index, directory: Directory, leases: ByteLocks) -> None:
    """Close the index and give back the lock of those who have it open; the last one notes how its file is then.

    Who opens it next finds it as it was left, and need not look at its pages, which takes longer the more there are.
    A file that is shorter than it should be is not noted: it was cut off under us.

    1. We are alone, and lock out all others. 2. Somebody opens the index, and cannot share the lock. So this happens
    under the lock of those who open it; while another process has that, we leave without a note.
    """
    whole = index.is_whole()
    index.close()
    noting = whole and leases.try_exclusive(MAINTENANCE_BYTE)
    try:
        with contextlib.suppress(OSError):
            if noting and leases.try_exclusive(USERS_BYTE):
                write_private(directory.closed_file, _state(directory))
    finally:
        leases.unlock(USERS_BYTE)
        if noting:
            leases.unlock(MAINTENANCE_BYTE)


def _state(directory: Directory) -> str:
    """Return what changes with any write to the index's file: its time of change, which nobody can set."""
    told = (directory.index / "data.mdb").stat()
    return f"{told.st_dev} {told.st_ino} {told.st_size} {told.st_mtime_ns} {told.st_ctime_ns}\n"


def _is_as_it_was_left(directory: Directory) -> bool:
    try:
        return directory.closed_file.read_text(errors="replace") == _state(directory)
    except OSError:
        return False


def _open_index(directory: Directory, *, map_bytes: int, alone: bool) -> tuple[Index, bool]:
    boot = boot_id()
    known_boot = directory.boot_file.read_text(errors="replace") if directory.boot_file.exists() else ""
    fresh = not (directory.index / "data.mdb").exists()
    stale = not fresh and known_boot != boot
    if stale:
        _LOG.info("the machine was restarted since %s was used: rebuilding its index", directory.path)
        _empty(directory.index)
    try:
        if alone and (directory.index / "data.mdb").exists() and not _is_as_it_was_left(directory):
            check_pages(directory.index / "data.mdb", rows=ROWS)
        index = _trusted(directory.index, map_bytes=map_bytes)
    except _UNREADABLE as error:  # and nothing else: other processes may be using the index that we cannot open
        _LOG.warning("the index of %s cannot be read (%s): rebuilding it from the segments", directory.path, str(error))
        _empty(directory.index)
        index, stale = Index(directory.index, map_bytes=map_bytes), True
    return index, stale


def is_lost(index: Index, tiers: dict[int, Tier]) -> bool:
    """Tell whether the index knows of no segment although there are some."""
    with index.read() as transaction:
        if index.has_segments(transaction):
            return False
    return any(segment_id_of(path) is not None for tier in tiers.values() for path in tier.path.glob("*.seg"))


def note_boot(directory: Directory) -> None:
    """Note that the index is good for as long as the machine runs; the note is whole, or it is the one before."""
    boot = boot_id()
    if directory.boot_file.exists() and directory.boot_file.read_text(errors="replace") == boot:
        return
    draft = directory.boot_file.with_name("boot.new")
    write_private(draft, boot)
    draft.replace(directory.boot_file)


def rebuild(
    index: Index, *, tiers: dict[int, Tier], leases_path: str, progress: Callable[[int], None] = lambda objects: None
) -> int:
    """Make the index anew from the segments; return the number of objects found. Payloads are not read.

    1. Each segment is leased, through a descriptor of its own, so that nobody sweeps it until this is done.
    2. All segments are looked through. 3. In one transaction, in which nobody can publish or reserve, those that
    somebody writes or wrote until a moment ago and those that are new are looked through again, and the tables are
    replaced.
    """
    with closing(ByteLocks(leases_path)) as locks:
        scans = {}
        unfinished = set()
        for number, tier, path in _leased(tiers, locks, timeout_s=_SWEEP_S):
            if not locks.is_free(WRITER_BYTE + number):
                unfinished.add(number)
            scans[number] = _scan(tier, path)
            progress(len(scans[number].records))
        with index.write() as transaction:
            before = index.segments(transaction)
            for number, tier, path in _leased(tiers, locks, timeout_s=0):
                written = not locks.is_free(WRITER_BYTE + number)
                if written or number in unfinished or number not in scans or scans[number].is_outdated():
                    scans[number] = _scan(tier, path)
                if written:
                    known = before.get(number, SegmentRow(tier.number, OPEN, 0))
                    reserved = max(known.reserved, scans[number].row.reserved)
                    scans[number].row = SegmentRow(tier.number, OPEN, reserved, scans[number].row.dead)
                elif not scans[number].readable:
                    path.unlink(missing_ok=True)  # its first page never reached the disk: nothing can be found in it
            return _replace(index, transaction, tiers, scans)


@dataclass(slots=True)
class _Scan:
    """What was found in one segment; not `readable` if it does not begin as a segment does."""

    path: Path
    row: SegmentRow
    records: list[Record]
    readable: bool

    def is_outdated(self) -> bool:
        """Tell whether the file takes other space now: somebody sealed it, as its writer had died."""
        return self.row.reserved != _blocks(self.path)


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # removed by force meanwhile
        return 0


def _leased(tiers: dict[int, Tier], locks: ByteLocks, *, timeout_s: float) -> Iterator[tuple[int, Tier, Path]]:
    for tier in tiers.values():
        for path in sorted(tier.path.glob("*.seg")):
            number = segment_id_of(path)
            if number is not None and locks.wait_shared(number, timeout_s=timeout_s):
                yield number, tier, path


def _scan(tier: Tier, path: Path) -> _Scan:
    number = segment_id_of(path)
    try:
        readable = number is not None and has_header(path, number)
        records = list(walk(path)) if readable else []
    except FileNotFoundError:  # removed by force meanwhile
        readable, records = False, []
    good = [r for r in records if r.state == COMMITTED and key_of_identity(r.identity) == r.key]
    dead = sum(r.end - r.start for r in records) - sum(r.end - r.start for r in good)
    return _Scan(path, SegmentRow(tier.number, SUSPECT, _blocks(path), dead), good, readable)


def _replace(index: Index, transaction: Any, tiers: dict[int, Tier], scans: dict[int, _Scan]) -> int:
    kept = {number: scan for number, scan in scans.items() if scan.path.exists()}
    index.drop_all(transaction)
    for number, row in index.segments(transaction).items():
        if not tiers[row.tier].segment_path(number).exists():
            index.put_segment(transaction, number, None)
    dead: dict[int, int] = {}
    for number, scan in sorted(kept.items()):
        for record in scan.records:
            entry = Entry(number, record.payload, record.length, record.checksum, record.digest)
            older = index.put_entry(transaction, record.key, entry)
            if older is not None:
                dead[older.segment] = dead.get(older.segment, 0) + older.length
    for number, scan in kept.items():
        row = scan.row
        row = SegmentRow(row.tier, row.state, row.reserved, row.dead + dead.get(number, 0))
        index.put_segment(transaction, number, row)
    index.skip_segment_ids(transaction, max(kept, default=0))
    return index.count(transaction)


def _trusted(path: Path, *, map_bytes: int) -> Index:
    """Open the index; lmdb.CorruptedError if its file was cut off.

    A file that is shorter than its last page need not be: LMDB does not write pages at the end that it took and gave
    back within one transaction. So the file is made as long as that page says, which also takes away the SIGBUS that
    reading a missing page would be; what was cut off then reads as zeros, which no page is.
    """
    index = Index(path, map_bytes=map_bytes)
    try:
        if index.make_whole():
            index.walk()
        index.check()
    except lmdb.Error:
        index.close()
        raise
    return index


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir(mode=0o700)
