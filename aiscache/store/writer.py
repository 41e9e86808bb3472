"""`SegmentWriter`: the one segment that this process appends to.

Space on disk is reserved with `posix_fallocate` before it is written: a full file system is then an error that can be
handled, where writing past it through a mapping would be a SIGBUS. The file never is longer than what is reserved.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from aiscache.store.names import PAGE, SEGMENT_HEADER_BYTES, segment_header
from aiscache.store.record import COMMITTED, PENDING, checksum_of, pack_header, record_span

_POPULATE_WRITE = (
    23  # madvise(2), Linux 5.14: one call instead of a page fault per 4 KiB, a tenth of a put's kernel time
)


def round_to_page(size: int) -> int:
    """Round up to whole pages, as file systems allocate them."""
    return (size + PAGE - 1) & -PAGE


@dataclass(slots=True, eq=False)
class Reservation:
    """Space for one object: fill `buffer` (length bytes, writable), then publish it or give it up.

    It stays usable when its writer has moved on to another segment: it holds the mapping that it lies in.
    """

    writer: SegmentWriter
    start: int
    end: int
    payload: int
    length: int
    key: bytes
    digest: int
    identity: bytes
    header: memoryview
    buffer: memoryview

    def commit(self) -> int:
        """Write the header that makes the record good; return the payload's checksum."""
        checksum = checksum_of(self.buffer)
        self.write_header(COMMITTED, checksum)
        return checksum

    def write_header(self, state: int, checksum: int) -> None:
        """Write the header, PENDING to let a walk step over the record should we die before `commit`."""
        header = pack_header(
            state=state,
            key=self.key,
            digest=self.digest,
            identity=self.identity,
            length=self.length,
            checksum=checksum,
        )
        self.header[: len(header)] = header

    def erase_header(self) -> None:
        """Make a walk end here."""
        self.header[:] = bytes(len(self.header))


class SegmentWriter:
    """Appends records to a new segment file; not thread-safe, the store calls it under its lock.

    `position` is where the next record begins, `allocated` how many bytes the file has, `pending` how many
    reservations are neither published nor given up.
    """

    def __init__(self, path: Path, *, segment_id: int, tier: int) -> None:
        self.path = path
        self.segment_id = segment_id
        self.tier = tier
        self.position = SEGMENT_HEADER_BYTES
        self.allocated = 0
        self.pending = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._window = (0, 0, memoryview(b""))

    def extend(self, size: int) -> None:
        """Make the file `size` bytes long, a whole number of pages, all of them allocated; OSError if it cannot be."""
        start = self.position & -PAGE
        try:
            os.posix_fallocate(self._fd, self.allocated, size - self.allocated)
            if self.allocated == 0:
                os.pwrite(self._fd, segment_header(self.segment_id), 0)
            window = mmap.mmap(self._fd, size - start, offset=start)
            with contextlib.suppress(OSError):  # an older kernel: the pages are then faulted in one by one
                window.madvise(_POPULATE_WRITE)
        except OSError:
            os.ftruncate(self._fd, self.allocated)  # a file system may have allocated a part
            raise
        self._window = (start, size, memoryview(window))  # an older one lives on in the reservations that use it
        self.allocated = size

    def is_whole(self) -> bool:
        """Tell whether nobody removed the file or cut it off: writing to what is gone would be a SIGBUS; 0.6 us."""
        told = os.fstat(self._fd)
        return told.st_nlink > 0 and told.st_size >= self.allocated

    def take(self, *, key: bytes, digest: int, identity: bytes, length: int) -> Reservation:
        """Reserve the next record; the caller made sure that it fits into what is allocated."""
        offset, span = record_span(identity, length)
        start = self.position
        self.position += span
        payload = start + offset
        base, limit, window = self._window
        if start + span > limit:
            raise ValueError(f"bytes {start} to {start + span} are past what is allocated ({limit})")
        header = window[start - base : payload - base]
        buffer = window[payload - base : payload - base + length]
        reservation = Reservation(self, start, start + span, payload, length, key, digest, identity, header, buffer)
        reservation.write_header(PENDING, 0)
        self.pending += 1
        return reservation

    def give_up(self, reservation: Reservation) -> bool:
        """Take back the last reservation made; False if another one follows it."""
        if self.position != reservation.end:
            return False
        self.position = reservation.start
        reservation.erase_header()
        return True

    def finish(self) -> int:
        """Cut off what was allocated and not used; return the bytes that the file keeps on disk.

        The file ends where the last record does, not at the end of its page: what lies past it is then found out.
        """
        os.ftruncate(self._fd, self.position)
        self.allocated = round_to_page(self.position)
        return os.fstat(self._fd).st_blocks * 512

    def close(self) -> None:
        """Close the file; reservations that are out keep their memory."""
        fd, self._fd = self._fd, -1
        self._window = (0, 0, memoryview(b""))
        if fd >= 0:
            os.close(fd)
