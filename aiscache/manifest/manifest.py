"""The listing of a dataset's sources as flat columns: `Manifest`.

One file, mapped read-only and shared by all processes through the page cache: 100 bytes per object on disk and no
Python object per row in memory. Pickles as its path. While it is open, a shared lock on the file tells `ManifestStore`
that it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from aiscache.errors import ManifestError
from aiscache.keys import KEY_BYTES, ObjectRef
from aiscache.manifest.layout import Layout, Source, decode

_TWO_ENDS = Struct("<QQ")
_ONE = Struct("<Q")
_SIZE = Struct("<q")
_SOURCE = Struct("<I")
_VERIFY_BYTES = 1 << 20
_LOCK_TRIES = 200
_LOCK_PAUSE_S = 0.005

_open: weakref.WeakValueDictionary[str, Manifest] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


class Manifest:
    """The objects of a dataset, in its order. Made by `Manifest.open`, `Manifest.of_bytes` or a `ManifestStore`."""

    keys: npt.NDArray[np.uint8]
    """The keys, as a read-only (rows, 16) view of the file."""
    digests: npt.NDArray[np.uint64]
    """The version digests, as a read-only view."""
    sizes: npt.NDArray[np.int64]
    """The sizes in bytes (-1: not known), as a read-only view."""
    source_indices: npt.NDArray[np.uint32]
    """The place in `sources` of each row's bucket, as a read-only view."""

    def __init__(self, data: mmap.mmap | bytes, layout: Layout, *, path: str = "") -> None:
        self._data = data
        self._layout = layout
        self._header = layout.header
        self._count = layout.header.count
        self.path = path
        self._names = _column(data, layout, "names")
        self._checksums = _column(data, layout, "checksums")
        self._versions = _column(data, layout, "versions")
        self._keys_at = self._header.sections["keys"][0]
        self._sizes_at = self._header.sections["sizes"][0]
        self._sources_at = self._header.sections["sources"][0]
        self.keys = self._view("keys", np.dtype(np.uint8)).reshape(self._count, KEY_BYTES)
        self.digests = self._view("digests", np.dtype("<u8"))
        self.sizes = self._view("sizes", np.dtype("<i8"))
        self.source_indices = self._view("sources", np.dtype("<u4"))

    @classmethod
    def open(cls, path: str, *, verify: bool = True) -> Manifest:
        """Map a manifest file, or return the one that this process has mapped already.

        `verify` reads all of it once (tens of ms per 100 MB from the page cache) and holds it against its hash.
        ManifestError if it is missing, damaged or of another format.
        """
        path = os.path.abspath(path)
        with _open_lock:
            found = _open.get(path)
            if found is None:
                found = _open[path] = _map(path, verify)
            return found

    @classmethod
    def of_bytes(cls, data: bytes) -> Manifest:
        """Return a manifest that lives in the heap, for when there is no place for a file; pickles by value."""
        layout = decode(data, name="a manifest in memory")
        _verify_buffer(data, layout)
        return cls(data, layout)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.path,)) if self.path else (Manifest.of_bytes, (bytes(self._data),))

    def __repr__(self) -> str:
        return f"<Manifest of {self._count:,} objects, {self.total_bytes:,} bytes>"

    # ---- the whole

    def __len__(self) -> int:
        return self._count

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes of all rows; unknown ones count 0."""
        return self._header.total_bytes

    @property
    def etl(self) -> str:
        """The ETL that the objects are read through, "" for none."""
        return self._header.etl

    @property
    def sources(self) -> list[Source]:
        """The buckets of the rows, in the order of their first row."""
        return self._header.sources

    @property
    def listed_at(self) -> float:
        """When the listing began, in seconds of the epoch; 0.0 for one without a file. Identical listings renew it."""
        return os.stat(self.path).st_mtime if self.path else 0.0

    def _view(self, section: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        offset, length = self._header.sections[section]
        view = np.frombuffer(self._data, dtype, length // dtype.itemsize, offset)
        view.flags.writeable = False
        return view

    # ---- a row

    def __getitem__(self, index: int) -> ObjectRef:
        return self.ref(index)

    def __iter__(self) -> Iterator[ObjectRef]:
        return map(self.ref, range(self._count))

    def ref(self, index: int) -> ObjectRef:
        """Return one row; 3 us. IndexError out of range; negative indices count from the end."""
        index = self._row(index)
        source = self.bucket(index)
        return ObjectRef(
            cluster=source.cluster,
            provider=source.provider,
            bucket=source.bucket,
            name=self._names.at(index),
            namespace=source.namespace,
            etl=self._header.etl,
            size=_SIZE.unpack_from(self._data, self._sizes_at + 8 * index)[0],
            checksum=self._checksums.at(index),
            version=self._versions.at(index),
        )

    def name(self, index: int) -> str:
        """Return an object's name; 0.4 us."""
        if not 0 <= index < self._count:
            index = self._row(index)
        return self._names.at(index)

    def size(self, index: int) -> int:
        """Return an object's size in bytes, -1 if it is not known."""
        size: int = _SIZE.unpack_from(self._data, self._sizes_at + 8 * self._row(index))[0]
        return size

    def key(self, index: int) -> bytes:
        """Return an object's key, as `ObjectRef.key` has it; 0.3 us."""
        if not 0 <= index < self._count:
            index = self._row(index)
        start = self._keys_at + KEY_BYTES * index
        return self._data[start : start + KEY_BYTES]

    def names_of(self, rows: Sequence[int]) -> list[str]:
        """Return the names of rows that are within range, none of them negative; 0.3 us each."""
        return self._names.at_all(np.array(rows, np.int64))

    def identities(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> tuple[list[bytes], list[int]]:
        """Return the keys and the version digests of rows, as `key` and `digests` have them; 0.15 us each."""
        places = np.array(rows, np.int64)
        try:
            packed, digests = self.keys[places].tobytes(), self.digests[places].tolist()
        except IndexError:
            packed, digests = b"", [self._row(row) for row in rows]  # which raises what says more
        return [packed[start : start + KEY_BYTES] for start in range(0, len(packed), KEY_BYTES)], digests

    def bucket(self, index: int) -> Source:
        """Return the bucket of a row."""
        number: int = _SOURCE.unpack_from(self._data, self._sources_at + 4 * self._row(index))[0]
        try:
            return self._header.sources[number]
        except IndexError:
            raise ManifestError(f"{self.path or 'a manifest'} is damaged: row {index} names source {number}") from None

    def _row(self, index: int) -> int:
        if 0 <= index < self._count:
            return index
        if -self._count <= index < 0:
            return index + self._count
        raise IndexError(f"object {index} of {self._count}")


class _Column:
    """Reads strings out of a blob; what lies outside of it is a ManifestError."""

    __slots__ = ("_data", "_end", "_ends", "_ends_at", "_start", "_width")

    def __init__(
        self, data: mmap.mmap | bytes, start: int, length: int, *, width: int, ends_at: int, ends: npt.NDArray[np.int64]
    ) -> None:
        self._data = data
        self._start, self._end = start, start + length
        self._width = width
        self._ends_at, self._ends = ends_at, ends

    def at(self, index: int) -> str:
        """Return the string of a row that is within range."""
        if self._width >= 0:
            first = self._start + self._width * index
            last = first + self._width
        elif index:
            first, last = _TWO_ENDS.unpack_from(self._data, self._ends_at + 8 * (index - 1))
            first, last = self._start + first, self._start + last
        else:
            first, last = self._start, self._start + _ONE.unpack_from(self._data, self._ends_at)[0]
        if not self._start <= first <= last <= self._end:
            raise ManifestError(
                f"a manifest is damaged: row {index} lies outside of its column; list the dataset again"
            )
        return self._data[first:last].decode("utf-8", "surrogateescape")

    def at_all(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the strings of rows that are within range."""
        if self._width >= 0:
            firsts = self._start + self._width * rows
            lasts = firsts + self._width
        else:
            lasts = self._start + self._ends[rows]
            firsts = self._start + np.where(rows > 0, self._ends[rows - 1], 0)
        if not ((self._start <= firsts) & (firsts <= lasts) & (lasts <= self._end)).all():
            return [self.at(row) for row in rows.tolist()]  # which raises what says more
        data = self._data
        places = zip(firsts.tolist(), lasts.tolist(), strict=True)
        return [data[first:last].decode("utf-8", "surrogateescape") for first, last in places]


def _column(data: mmap.mmap | bytes, layout: Layout, name: str) -> _Column:
    header = layout.header
    start, length = header.sections[name]
    width = header.widths.get(name, -1)
    ends_at, ends_length = (0, 0) if width >= 0 else header.sections[f"{name[:-1]}_ends"]
    ends = np.frombuffer(data, "<i8", ends_length // 8, ends_at)
    return _Column(data, start, length, width=width, ends_at=ends_at, ends=ends)


def _reopen(path: str) -> Manifest:
    """Open what a pickle names: it was verified by the process that pickled it."""
    return Manifest.open(path, verify=False)


def _map(path: str, verify: bool) -> Manifest:
    """Open, lock, map and check.

    Python's mapping keeps a duplicate of the descriptor, and with it the lock: it is held until the manifest and the
    last view of it are gone.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise ManifestError(f"the listing {path} cannot be opened: {error.strerror}; make the dataset anew") from error
    try:
        _share(fd, path)
        found = os.fstat(fd)
        if found.st_nlink == 0 or found.st_size == 0:
            raise ManifestError(f"the listing {path} was removed; make the dataset anew")
        with contextlib.ExitStack() as undo:
            data = undo.enter_context(mmap.mmap(fd, found.st_size, access=mmap.ACCESS_READ))
            layout = decode(data, name=path)
            if verify:
                _verify_file(fd, layout, path)
            manifest = Manifest(data, layout, path=path)
            undo.pop_all()
            return manifest
    finally:
        os.close(fd)


def _share(fd: int, path: str) -> None:
    """Take the shared lock; others hold the exclusive one for a moment only, to see whether a file is used."""
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        time.sleep(_LOCK_PAUSE_S)
    raise ManifestError(f"the listing {path} is being written or removed by another process; make the dataset anew")


def _sections_start(layout: Layout) -> int:
    return min(offset for offset, _ in layout.header.sections.values())


def _verify_file(fd: int, layout: Layout, path: str) -> None:
    """Hold the sections against their hash by reading, not through the mapping, so that no memory is charged for it."""
    hasher, offset = xxhash.xxh3_64(), _sections_start(layout)
    while piece := os.pread(fd, _VERIFY_BYTES, offset):
        hasher.update(piece)
        offset += len(piece)
    if hasher.intdigest() != layout.sections_hash:
        raise ManifestError(f"{path} is damaged: its content is not what was written")


def _verify_buffer(data: bytes, layout: Layout) -> None:
    if xxhash.xxh3_64_intdigest(memoryview(data)[_sections_start(layout) :]) != layout.sections_hash:
        raise ManifestError("a manifest in memory is damaged: its content is not what was written")


def _after_fork() -> None:
    """In a child: the parent's lock may be held by a thread that does not exist here."""
    global _open_lock  # noqa: PLW0603 -- replaced, not shared
    _open_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
