"""A manifest in the making: columns that grow by pages, then become the parts of a file.

No object per row outlives its page. About 2.5 us per row, of which keys and digests are most.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate

import xxhash

from aiscache.keys import key_hasher, version_digest
from aiscache.manifest.layout import Header, Source, encode


class StringColumn:
    """Strings end to end, and where each ends."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.ends = array("Q")

    def extend(self, values: Sequence[str]) -> None:
        """Add one page."""
        encoded = [value.encode("utf-8", "surrogateescape") for value in values]
        ends = accumulate(map(len, encoded), initial=len(self.blob))
        next(ends)
        self.ends.extend(ends)
        self.blob += b"".join(encoded)

    @property
    def width(self) -> int | None:
        """The length that all values have, None if they differ (or there are none)."""
        count = len(self.ends)
        if not count or len(self.blob) % count:
            return None
        width = len(self.blob) // count
        return (
            width if self.ends == array("Q", range(width, width * count + 1, width) if width else [0] * count) else None
        )


class Draft:
    """Rows of one dataset, in its order."""

    def __init__(self, *, etl: str = "") -> None:
        self.etl = etl
        self.sources: list[Source] = []
        self._names, self._checksums, self._versions = StringColumn(), StringColumn(), StringColumn()
        self._sizes = array("q")
        self._source_of = array("I")
        self._keys = bytearray()
        self._digests = array("Q")
        self._key_of: Callable[[str], bytes] | None = None
        self._number = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def begin(self, source: Source) -> None:
        """Take the rows that follow as objects of this bucket."""
        if source not in self.sources:
            self.sources.append(source)
        self._number = self.sources.index(source)
        self._key_of = key_hasher(source.cluster, source.provider, source.namespace, source.bucket, self.etl)

    def extend(
        self, names: Sequence[str], *, sizes: Sequence[int], checksums: Sequence[str], versions: Sequence[str]
    ) -> None:
        """Add rows of the bucket begun last: columns of equal length; a size that is not known is -1."""
        if self._key_of is None:
            raise ValueError("begin() a source before its rows")
        self._names.extend(names)
        self._checksums.extend(checksums)
        self._versions.extend(versions)
        self._sizes.extend(sizes)
        self._source_of.extend([self._number] * len(names))
        self._keys += b"".join(map(self._key_of, names))
        self._digests.extend(map(version_digest, sizes, checksums, versions))

    def parts(self) -> list[bytes | bytearray | memoryview]:
        """Return the file, in parts to be written one after the other."""
        total = sum(size for size in self._sizes if size > 0)
        header = Header(len(self), total, self.etl, self.sources, {}, {})
        sections: list[tuple[str, object]] = []
        for name, column in (("names", self._names), ("checksums", self._checksums), ("versions", self._versions)):
            sections.append((name, column.blob))
            width = column.width
            if width is None:
                sections.append((f"{name[:-1]}_ends", _raw(column.ends)))
            else:
                header.widths[name] = width
        sections += [("sizes", _raw(self._sizes)), ("sources", _raw(self._source_of)), ("keys", self._keys)]
        sections.append(("digests", _raw(self._digests)))
        return encode(header, sections)


def content_hash(parts: Sequence[bytes | bytearray | memoryview]) -> str:
    """Return 32 hex digits that name the content: two listings that found the same have the same."""
    hasher = xxhash.xxh3_128()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def _raw(column: array[int]) -> memoryview:
    return memoryview(column).cast("B")
