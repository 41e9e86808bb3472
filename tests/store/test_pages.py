"""What LMDB writes is found whole, whatever was done to it; what is damaged anywhere is found out, or does no harm."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import lmdb
import pytest

from aiscache.store.index import ROWS, Entry, Index, SegmentRow
from aiscache.store.pages import check_pages


@pytest.mark.parametrize("seed", range(3))
def test_what_lmdb_writes_is_whole(tmp_path: Path, seed: int) -> None:
    """A table grows, shrinks and is dropped, beside a reader that keeps old pages: the list of free pages is long."""
    chosen = random.Random(seed)
    index = Index(tmp_path, map_bytes=64 << 20)
    keys: list[bytes] = []
    with ExitStack() as reading:
        for turn in range(200):
            with index.write() as transaction:
                for _ in range(chosen.choice([1, 3, 30, 500])):
                    keys.append(chosen.randbytes(16))
                    index.put_entry(transaction, keys[-1], Entry(1, 2, 3, 4, 5))
                chosen.shuffle(keys)
                for _ in range(min(len(keys), chosen.choice([0, 1, 20, 300]))):
                    index.delete_entry(transaction, keys.pop())
                index.put_segment(transaction, chosen.randrange(300), SegmentRow(1, 2, 4096))
                if turn % 70 == 69:
                    index.drop_all(transaction)
                    keys.clear()
            if turn in (40, 120):
                reading.close()
                reading.enter_context(index._env.begin())
            check_pages(tmp_path / "data.mdb", rows=ROWS)
    assert index._env.info()["last_pgno"] > 300
    index.close()
    check_pages(tmp_path / "data.mdb", rows=ROWS)


@pytest.mark.parametrize("name", ["empty", "one"])
def test_small_ones_are_whole(tmp_path: Path, name: str) -> None:
    index = Index(tmp_path, map_bytes=1 << 20)
    if name == "one":
        with index.write() as transaction:
            index.put_entry(transaction, bytes(16), Entry(1, 2, 3, 4, 5))
    index.close()
    check_pages(tmp_path / "data.mdb", rows=ROWS)


@pytest.mark.parametrize("keep", [1, 4096, 8192, 12288, 20000])
def test_a_file_that_was_cut_off_is_not(tmp_path: Path, keep: int) -> None:
    index = Index(tmp_path, map_bytes=1 << 20)
    with index.write() as transaction:
        for number in range(500):
            index.put_entry(transaction, number.to_bytes(16, "big"), Entry(1, 2, 3, 4, 5))
    index.close()
    os.truncate(tmp_path / "data.mdb", keep)
    with pytest.raises(lmdb.CorruptedError, match="damaged: "):
        check_pages(tmp_path / "data.mdb", rows=ROWS)


def test_a_table_of_other_rows_is_not(tmp_path: Path) -> None:
    index = Index(tmp_path, map_bytes=1 << 20)
    with index.write() as transaction:
        transaction.put(b"k" * 16, b"too short", db=index.entries)
    with pytest.raises(lmdb.CorruptedError, match="9 bytes"):
        index.value(b"k" * 16)
    with pytest.raises(lmdb.CorruptedError, match="9 bytes"):
        index.values([b"k" * 16])
    index.close()
    with pytest.raises(lmdb.CorruptedError, match="a value of table b'entries'"):
        check_pages(tmp_path / "data.mdb", rows=ROWS)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (SegmentRow(7, 2, 4096), "of no kind"),
        (SegmentRow(1, 9, 4096), "of no kind"),
        (SegmentRow(1, 2, 1 << 60), "the size of a segment"),
        (SegmentRow(1, 2, 0, 1 << 60), "the size of a segment"),
    ],
)
def test_rows_that_cannot_be_are_found_out(tmp_path: Path, row: SegmentRow, what: str) -> None:
    index = Index(tmp_path, map_bytes=1 << 20)
    with index.write() as transaction:
        index.put_segment(transaction, 5, row)
    with pytest.raises(lmdb.CorruptedError, match=what):
        index.check()
    index.close()


def test_totals_that_are_no_sums_are_found_out(tmp_path: Path) -> None:
    index = Index(tmp_path, map_bytes=1 << 20)
    with index.write() as transaction:
        index.put_segment(transaction, 5, SegmentRow(1, 2, 4096))
    index.check()
    index.set_number(b"reserved/1", 8192)
    with pytest.raises(lmdb.CorruptedError, match="tier 1 has 4096 bytes"):
        index.check()
    index.set_number(b"reserved/1", 4096)
    index.set_number(b"next_segment", 1 << 61)
    with pytest.raises(lmdb.CorruptedError, match="the number of a segment"):
        index.check()
    index.close()


def test_who_reads_the_first_rows_is_told_of_damage_there_and_not_behind(tmp_path: Path) -> None:
    """Each page is spoiled in turn: a child that then reads the first rows lives, or the damage was found out."""
    index = Index(tmp_path, map_bytes=1 << 24)
    with index.write() as transaction:
        for number in range(3000):
            index.put_entry(transaction, number.to_bytes(16, "big"), Entry(1, 2, 3, 4, 5))
        index.put_segment(transaction, 5, SegmentRow(1, 2, 4096))
    index.close()
    file, most = tmp_path / "data.mdb", {b"entries": 100}
    whole = file.read_bytes()
    found_out, passed = 0, 0
    for page in range(2, len(whole) // 4096):
        with file.open("r+b") as writing:
            writing.seek(page * 4096)
            writing.write(b"\xff" * 4096)
        try:
            check_pages(file, rows=ROWS, most=most)
        except lmdb.CorruptedError:
            found_out += 1
        else:
            passed += 1
            assert _reads_the_first(tmp_path, most[b"entries"])
        file.write_bytes(whole)
    assert 0 < found_out < 15
    assert passed > 25


def _reads_the_first(path: Path, count: int) -> bool:
    """Tell whether a child that reads the first rows of each table ends well."""
    child = os.fork()
    if child == 0:
        with lmdb.open(str(path), readonly=True, lock=False, max_dbs=3) as env:
            for name in ROWS:
                with env.begin(db=env.open_db(name, create=False)) as reading, reading.cursor() as cursor:
                    list(islice(cursor, count))
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0
