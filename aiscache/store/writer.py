"""`SegmentWriter`: the one segment that this process appends to.

Space on disk is reserved with `posix_fallocate` before it is written, so that a full file system shows before the bytes
come. Then all is written with `pwritev`, and nothing through a mapping: on a fresh tmpfs page that takes half of the
kernel's time, since no page is cleared and none is faulted in, and a failing disk is an error instead of a SIGBUS.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiscache.errors import CacheError
from aiscache.store.names import PAGE, SEGMENT_HEADER_BYTES, segment_header
from aiscache.store.record import COMMITTED, PENDING, checksum_of, pack_header, record_span

_MOST_BUFFERS = 1024  # IOV_MAX: what one pwritev takes


def round_to_page(size: int) -> int:
    """Round up to whole pages, as file systems allocate them."""
    return (size + PAGE - 1) & -PAGE


class _File:
    """A descriptor that is closed when nobody has this object any more."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __del__(self, close: Any = os.close) -> None:
        if hasattr(self, "fd"):
            close(self.fd)

    def write(self, buffers: Sequence[Any], offset: int) -> int:
        """Write all of the buffers, one behind the other; return their length. OSError if it cannot be."""
        length = sum(map(len, buffers))
        if len(buffers) <= _MOST_BUFFERS and os.pwritev(self.fd, buffers, offset) == length:
            return length
        end = offset
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                written = os.pwrite(self.fd, rest, end)
                rest, end = rest[written:], end + written
        return length


@dataclass(slots=True, eq=False)
class Reservation:
    """Space for one object: write `length` bytes in order, note their checksum, then publish it or give it up.

    It stays usable when its writer has moved on to another segment, or was closed. If the file cannot be written, the
    bytes go on in this process's memory (`spilled`), so that who asked for the object has it all the same.
    """

    writer: SegmentWriter
    start: int
    end: int
    payload: int
    length: int
    key: bytes
    digest: int
    identity: bytes
    file: _File
    checksum: int = 0  # of the payload: set by `fill`, or by the caller from what is known of the bytes
    written: int = 0
    spilled: bytearray | None = field(default=None, repr=False)
    failure: OSError | None = None

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append bytes of the object. ValueError if they are too many; nothing is written then."""
        if self.written + sum(map(len, chunks)) > self.length:
            raise ValueError(f"more than the {self.length} bytes that are reserved")
        if self.spilled is None:
            try:
                self._check_whole()
                self.written += self.file.write(chunks, self.payload + self.written)
                return
            except OSError as error:
                self.spill(error)
        for chunk in chunks:
            self.spilled += chunk  # type: ignore[operator]  # `spill` made it
            self.written += len(chunk)

    def fill(self, data: bytes | bytearray | memoryview) -> None:
        """Write the object in one piece; 8 us of 100 KiB are for its checksum."""
        self.restart()
        self.write((data,))  # type: ignore[arg-type]  # any contiguous buffer of bytes
        self.checksum = checksum_of(data)

    def restart(self) -> None:
        """Begin anew: what was written so far is void."""
        self.written = 0
        if self.spilled is not None:
            self.spilled = bytearray()

    def spill(self, error: OSError) -> None:
        """Go on in memory, as the file cannot be written. CacheError if what was written cannot be read either."""
        self.failure = error
        self.spilled = bytearray(self.read())

    def read(self) -> bytes:
        """Return what was written so far."""
        if self.spilled is not None:
            return bytes(self.spilled)
        try:
            found = os.pread(self.file.fd, self.written, self.payload)
        except OSError as error:
            raise CacheError(f"cannot read what was just written to {self.writer.path}: {error.strerror}") from error
        if len(found) != self.written:
            raise CacheError(f"{self.writer.path} was cut off by somebody while it was written")
        return found

    def commit(self) -> None:
        """Write the header that makes the record good. OSError if it cannot be written."""
        if self.written != self.length:
            raise ValueError(f"{self.written} of the {self.length} bytes that are reserved were written")
        self._check_whole()
        self.write_header(COMMITTED)

    def _check_whole(self) -> None:
        """Raise OSError if somebody cut the file off: a write would fill the gap with zeros; 0.5 us.

        1. We look at the file. 2. Another thread makes it longer, and notes that. So what is noted is read first.
        """
        allocated = self.writer.allocated
        if os.fstat(self.file.fd).st_size < allocated:
            raise OSError(errno.EIO, "the segment was cut off by somebody", str(self.writer.path))

    def write_header(self, state: int) -> None:
        """Write the header, PENDING to let a walk step over the record should we die before `commit`."""
        header = pack_header(
            state=state,
            key=self.key,
            digest=self.digest,
            identity=self.identity,
            length=self.length,
            checksum=self.checksum,
        )
        self.file.write((header,), self.start)

    def erase_header(self) -> None:
        """Make a walk end here."""
        self.file.write((bytes(self.payload - self.start),), self.start)


class SegmentWriter:
    """Appends records to a new segment file; not thread-safe, the store calls it under its lock.

    `position` is where the next record begins, `allocated` how many bytes the file has, `pending` how many
    reservations are neither published nor given up, `dead` how many bytes are taken by records that never will be.
    """

    def __init__(self, path: Path, *, segment_id: int, tier: int) -> None:
        self.path = path
        self.segment_id = segment_id
        self.tier = tier
        self.position = SEGMENT_HEADER_BYTES
        self.allocated = 0
        self.pending = 0
        self.dead = 0
        self._file: _File | None = _File(path)

    @property
    def _open_file(self) -> _File:
        if self._file is None:
            raise ValueError(f"the writer of {self.path} is closed")
        return self._file

    def extend(self, size: int) -> None:
        """Make the file `size` bytes long, a whole number of pages, all of them allocated; OSError if it cannot be."""
        file = self._open_file
        try:
            os.posix_fallocate(file.fd, self.allocated, size - self.allocated)
            if self.allocated == 0:
                file.write((segment_header(self.segment_id),), 0)
        except OSError:
            os.ftruncate(file.fd, self.allocated)  # a file system may have allocated a part
            raise
        self.allocated = size

    def is_whole(self) -> bool:
        """Tell whether nobody removed the file or cut it off; 0.6 us."""
        told = os.fstat(self._open_file.fd)
        return told.st_nlink > 0 and told.st_size >= self.allocated

    def take(self, *, key: bytes, digest: int, identity: bytes, length: int) -> Reservation:
        """Reserve the next record; OSError if its header cannot be written.

        The caller made sure that it fits into what is allocated.
        """
        offset, span = record_span(identity, length)
        start = self.position
        if start + span > self.allocated:
            raise ValueError(f"bytes {start} to {start + span} are past what is allocated ({self.allocated})")
        reservation = Reservation(
            self, start, start + span, start + offset, length, key, digest, identity, self._open_file
        )
        reservation.write_header(PENDING)
        self.position += span
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
        fd = self._open_file.fd
        os.ftruncate(fd, self.position)
        self.allocated = round_to_page(self.position)
        return os.fstat(fd).st_blocks * 512

    def close(self) -> None:
        """Let the file go; reservations that are out keep it open."""
        self._file = None
