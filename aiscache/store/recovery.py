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
from collections.abc import Iterator
from pathlib import Path

import lmdb

from aiscache.errors import CacheError
from aiscache.keys import key_of_identity
from aiscache.locks import ByteLocks
from aiscache.store.directory import Directory, boot_id
from aiscache.store.index import OPEN, SEALED, SUSPECT, Entry, Index, SegmentRow
from aiscache.store.names import WRITER_BYTE, segment_id_of
from aiscache.store.reclaim import walk
from aiscache.store.record import COMMITTED, Record
from aiscache.store.tiers import Tier

_LOG = logging.getLogger("aiscache")

MAINTENANCE_BYTE = (1 << 61) + 1
_PATIENCE_S = 60.0


@contextlib.contextmanager
def maintenance(leases: ByteLocks) -> Iterator[None]:
    """Hold the lock of those who make or remake the index; CacheError if another process holds it for a minute."""
    if not leases.wait_exclusive(MAINTENANCE_BYTE, timeout_s=_PATIENCE_S):
        raise CacheError(f"another process has been repairing {leases.path} for {_PATIENCE_S:.0f} s; try again later")
    try:
        yield
    finally:
        leases.unlock(MAINTENANCE_BYTE)


def open_index(directory: Directory, *, map_bytes: int) -> tuple[Index, bool]:
    """Return the index, and whether it must be rebuilt from the segments; the caller holds `maintenance`."""
    boot = boot_id()
    known_boot = directory.boot_file.read_text() if directory.boot_file.exists() else ""
    fresh = not (directory.index / "data.mdb").exists()
    stale = not fresh and known_boot != boot
    if stale:
        _LOG.info("the machine was restarted since %s was used: rebuilding its index", directory.path)
        _empty(directory.index)
    try:
        index = Index(directory.index, map_bytes=map_bytes)
    except lmdb.Error as error:
        _LOG.warning("the index of %s cannot be read (%s): rebuilding it from the segments", directory.path, error)
        _empty(directory.index)
        index, stale = Index(directory.index, map_bytes=map_bytes), True
    return index, stale or (fresh and any(directory.segments.iterdir()))


def note_boot(directory: Directory) -> None:
    """Note that the index is good for as long as the machine runs."""
    directory.boot_file.write_text(boot_id())


def rebuild(index: Index, *, tiers: dict[int, Tier], leases: ByteLocks, suspect: bool) -> int:
    """Make the index anew from the segments; return the number of objects found. Payloads are not read."""
    rows: dict[int, SegmentRow] = {}
    found: dict[bytes, tuple[int, Record]] = {}
    for tier in tiers.values():
        for path in sorted(tier.path.glob("*.seg")):
            segment_id = segment_id_of(path)
            if segment_id is None:
                path.unlink()  # its first page never reached the disk: nothing in it can be found again
                continue
            rows[segment_id] = SegmentRow(tier.number, SUSPECT if suspect else SEALED, path.stat().st_blocks * 512)
            found.update((record.key, (segment_id, record)) for record in good_records(path))
    with index.write() as transaction:
        index.drop_all(transaction)
        for segment_id in index.segments(transaction):
            index.put_segment(transaction, segment_id, None)
        for segment_id, row in rows.items():
            written = not leases.is_free(WRITER_BYTE + segment_id)
            kept = SegmentRow(row.tier, OPEN, row.reserved) if written else row
            index.put_segment(transaction, segment_id, kept)
        for key, (segment_id, record) in found.items():
            entry = Entry(segment_id, record.payload, record.length, record.checksum, record.digest)
            index.put_entry(transaction, key, entry)
    return len(found)


def good_records(path: Path) -> Iterator[Record]:
    """Yield the complete records of a segment whose identity is the one that their key names."""
    for record in walk(path):
        if record.state == COMMITTED and key_of_identity(record.identity) == record.key:
            yield record


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir(mode=0o700)
