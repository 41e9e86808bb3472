"""Whether the data file of the index is whole: looked at page by page, before LMDB is let near it.

LMDB trusts its file. Of one whose end was lost it reads past the end (SIGBUS), follows page numbers to nowhere
(SIGSEGV) or gives up (SIGABRT), and the process is gone. So every page that can be reached is held against what LMDB
relies on: numbers, kinds, places of nodes within their page, counts, and free pages that nothing else uses.

The layout is that of LMDB 0.9 (data format 1), as `mdb.c` has it: pages of a header, an array of places and nodes that
grow from the end; two meta pages, of which the one of the later transaction counts.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct
from types import MappingProxyType
from typing import Any, NamedTuple

import lmdb
import numpy as np
import numpy.typing as npt

_META = Struct("<QHHIII8xQ48s48sQQ")  # page number, pad, flags, -, magic, version, -, map size, tables, last page, txn
_TABLE = Struct("<IHHQQQQQ")  # pad (page size in the first), flags, depth, branches, leaves, overflows, entries, root
_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _IS_META = 1, 2, 4, 8
_BIG, _SUBTABLE = 1, 2  # flags of a node: its data is on overflow pages; its data is a table
_INTEGER_KEYS = 8
_NO_PAGE = (1 << 64) - 1
_HEADER_BYTES, _NODE_BYTES = 16, 8
_DEEPEST = 32
_BLOCK = 512  # leaves looked at together: about 20 MB of numbers

Numbers = npt.NDArray[np.int64]


class Table(NamedTuple):
    """What LMDB notes of one table."""

    page_bytes: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class Nodes(NamedTuple):
    """The rows of a table: byte offsets in the file of their keys, and lengths."""

    at: Numbers
    flags: Numbers
    key_bytes: Numbers
    data_bytes: Numbers


ALL: Mapping[bytes, int] = MappingProxyType({})


def check_pages(path: Path, *, rows: dict[bytes, tuple[int, int]], most: Mapping[bytes, int] = ALL) -> None:
    """Raise lmdb.CorruptedError if the file is damaged, or has other tables than `rows`.

    `rows` are the lengths of key and value of each table, the key's 0 where they differ. Nobody may write meanwhile.
    `most` is for who only reads, and of a table only so many rows from the first on: the pages of these are looked at,
    and not the free ones, which only writers take. A file of a million rows takes 0.1 s, the first 2000 of them 10 ms.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        if size:
            _File(mmap.mmap(fd, size, access=mmap.ACCESS_READ)).check(rows, most)
    finally:
        os.close(fd)


def _require(holds: Any, what: str) -> None:
    if not np.all(holds):
        raise lmdb.CorruptedError(f"damaged: {what}")


class _File:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        _require(len(data) >= 2 * mmap.PAGESIZE, f"only {len(data)} bytes")
        metas = [_META.unpack_from(data, start) for start in (0, mmap.PAGESIZE)]
        for _, _, flags, _, magic, version, *_ in metas:
            _require((flags & _IS_META, magic, version) == (_IS_META, _MAGIC, _FORMAT), "a meta page")
        *_, self._map_bytes, free, main, last_page, _ = max(metas, key=lambda meta: (meta[-1], -meta[0]))
        self._free, self._main = Table(*_TABLE.unpack(free)), Table(*_TABLE.unpack(main))
        self._page_bytes = self._free.page_bytes
        _require(self._page_bytes == mmap.PAGESIZE, "the page size")
        self._last_page = last_page
        whole = len(data) // self._page_bytes
        self._words = np.frombuffer(data, "<u2", whole * self._page_bytes // 2)
        self._pages = self._words.reshape(whole, -1)
        self._used = np.zeros(whole, bool)
        self._used[:2] = True

    def check(self, rows: dict[bytes, tuple[int, int]], most: Mapping[bytes, int]) -> None:
        _require(self._last_page < self._map_bytes // self._page_bytes < 1 << 48, "the size of the map")
        _require((self._free.flags, self._main.flags) == (_INTEGER_KEYS, 0), "the kinds of tables")
        for names in self._nodes(self._main):
            _require(names.flags == _SUBTABLE, "the list of tables")
            for at, key_bytes, data_bytes in zip(names.at, names.key_bytes, names.data_bytes, strict=True):
                name = self._data[at : at + key_bytes]
                _require(name in rows and data_bytes == _TABLE.size, "the list of tables")
                table = Table(*_TABLE.unpack_from(self._data, at + key_bytes))
                self._check_table(name, table, rows[name], most.get(name))
        if not most:
            self._check_free_pages()

    def _check_table(self, name: bytes, table: Table, lengths: tuple[int, int], most: int | None) -> None:
        key, value = lengths
        for found in self._nodes(table, most):
            _require(table.flags == 0 and not found.flags.any(), f"table {name!r}")
            _require(found.data_bytes == value, f"a value of table {name!r}")
            _require(found.key_bytes == key if key else found.key_bytes > 0, f"a key of table {name!r}")

    def _check_free_pages(self) -> None:
        """See that no page is free twice, or free and used: LMDB would write over what is in use."""
        free = np.zeros(self._last_page + 1, bool)
        lists = list(self._nodes(self._free))
        used = np.flatnonzero(self._used)
        free[used[used <= self._last_page]] = True
        for found in lists:
            _require((found.key_bytes == 8) & (found.data_bytes >= 8), "the list of free pages")
            for at, flags, data_bytes in zip(found.at.tolist(), found.flags, found.data_bytes.tolist(), strict=True):
                self._check_free(free, at + 8, flags, data_bytes)

    def _check_free(self, free: npt.NDArray[np.bool_], start: int, flags: int, data_bytes: int) -> None:
        """Look at one list of free pages, and note them in `free`."""
        if flags & _BIG:
            start = self._overflow(int.from_bytes(self._data[start : start + 8], "little"), data_bytes)
            free[start // self._page_bytes : -(-(start + data_bytes) // self._page_bytes)] = True
        numbers = np.frombuffer(self._data, "<u8", data_bytes // 8, start)
        _require(numbers[0] < len(numbers), "a list of free pages")
        pages = numbers[1 : int(numbers[0]) + 1]
        _require((pages >= 2) & (pages <= self._last_page), "the number of a free page")
        pages = pages.astype(np.int64)
        _require(np.diff(pages) < 0, "the order of free pages")
        _require(~free[pages], "a page that is used and free")
        free[pages] = True

    def _nodes(self, table: Table, most: int | None = None) -> Iterator[Nodes]:
        """Yield the rows of a table in blocks, all its pages checked, level by level; or of the pages of the first."""
        if table.root == _NO_PAGE:
            _require((table.depth, table.entries) == (0, 0), "a table without pages")
            return
        _require(1 <= table.depth <= _DEEPEST and table.root < len(self._pages), "the root of a table")
        level, branches, entries = np.array([table.root], np.int64), 0, 0
        for _ in range(table.depth - 1):
            branches += len(level)
            level = self._children(level)
            if most is not None:
                level = self._leading(level, most)
        for start in range(0, len(level), _BLOCK):
            found = self._leaves(level[start : start + _BLOCK])
            entries += len(found.at)
            yield found
        if most is None:
            found_counts = (branches, len(level), entries)
            _require(found_counts == (table.branches, table.leaves, table.entries), "the counts of a table")

    def _leaves(self, level: Numbers) -> Nodes:
        nodes, words = self._places(level, _LEAF), self._words
        data_bytes = words[nodes].astype(np.int64) | words[nodes + 1].astype(np.int64) << 16
        flags, key_bytes = words[nodes + 2].astype(np.int64), words[nodes + 3].astype(np.int64)
        inline = np.where(flags & _BIG, 8, data_bytes)
        self._check_sizes(nodes, _NODE_BYTES + key_bytes + inline, level)
        return Nodes(2 * nodes + _NODE_BYTES, flags, key_bytes, data_bytes)

    def _leading(self, level: Numbers, most: int) -> Numbers:
        """Return the first pages of a level, as many as have `most` rows; each has one at least."""
        level = level[:most]
        _require(level < len(self._pages), "the number of a page")
        rows = (self._pages[level, 6].astype(np.int64) - _HEADER_BYTES) // 2
        return level[: 1 + int(np.searchsorted(np.cumsum(np.maximum(rows, 0)), most))]

    def _children(self, level: Numbers) -> Numbers:
        nodes, words = self._places(level, _BRANCH), self._words
        children = [words[nodes + place].astype(np.int64) << 16 * place for place in range(3)]
        self._check_sizes(nodes, _NODE_BYTES + words[nodes + 3].astype(np.int64), level)
        return children[0] | children[1] | children[2]

    def _places(self, level: Numbers, kind: int) -> Numbers:
        """Return where the nodes of pages are, counted in words of the file."""
        _require(level < len(self._pages), "the number of a page")
        _require(level <= self._last_page, "the number of a page")
        _require(len(np.unique(level)) == len(level) and not self._used[level].any(), "a page that is used twice")
        self._used[level] = True
        pages = self._pages[level].astype(np.int64)
        _require(
            pages[:, 0] | pages[:, 1] << 16 | pages[:, 2] << 32 | pages[:, 3] << 48 == level,
            "the number that a page has",
        )
        flags, lower, upper = pages[:, 5], pages[:, 6], pages[:, 7]
        _require(flags == kind, "the kind of a page")
        _require((lower >= _HEADER_BYTES) & (lower <= upper) & (upper <= self._page_bytes), "the bounds of a page")
        count = (lower - _HEADER_BYTES) // 2
        _require(count >= (2 if kind == _BRANCH else 1), "the number of rows of a page")
        taken = np.arange(count.max()) < count[:, None]
        places = pages[:, 8 : 8 + taken.shape[1]]
        within = (places >= upper[:, None]) & (places <= self._page_bytes - _NODE_BYTES) & (places % 2 == 0)
        _require(within | ~taken, "the place of a row")
        nodes: Numbers = (places // 2 + (level * (self._page_bytes // 2))[:, None])[taken]
        return nodes

    def _check_sizes(self, nodes: Numbers, sizes: Numbers, level: Numbers) -> None:
        """See that nodes end within their pages, and that together they fill what the pages say is filled."""
        per_page = self._page_bytes // 2
        _require(2 * (nodes % per_page) + sizes <= self._page_bytes, "the length of a row")
        order = np.argsort(level)
        owner = order[np.searchsorted(level, nodes // per_page, sorter=order)]
        filled = np.bincount(owner, sizes + sizes % 2, len(level))
        _require(filled == self._page_bytes - self._pages[level, 7].astype(np.int64), "the rows of a page")

    def _overflow(self, first: int, data_bytes: int) -> int:
        """Return where in the file the data of a row begins that has pages of its own."""
        count = -(-(_HEADER_BYTES + data_bytes) // self._page_bytes)
        end = min(len(self._pages), self._last_page + 1)
        _require(first >= 2 and first + count <= end, "the number of an overflow page")
        header = self._pages[first].astype(np.int64)
        _require((header[5] == _OVERFLOW, header[6] | header[7] << 16 == count), "an overflow page")
        _require(~self._used[first : first + count], "an overflow page that is used twice")
        self._used[first : first + count] = True
        return first * self._page_bytes + _HEADER_BYTES
