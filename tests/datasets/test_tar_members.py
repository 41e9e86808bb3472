"""Tar archives in memory: all that tarfile reads, nothing that is damaged."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import tarfile
from typing import Any

import pytest

from aiscache.datasets.decompress import uncompressed
from aiscache.datasets.shard_index import ShardIndex
from aiscache.datasets.tar_members import Member, tar_members
from aiscache.errors import ManifestError, ShardError
from aiscache.view import own_view

from .shard_files import shard

FILES = {
    "a/0.jpg": os.urandom(1000),
    "a/0.cls": b"1",
    "empty.txt": b"",
    "b/" + "x" * 200 + ".jpg": b"long",
    "ü.t": b"u",
}


def read(tar: bytes) -> dict[str, bytes]:
    return {name: tar[offset : offset + size] for name, offset, size in tar_members(tar, shard="s")}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format(format: int) -> None:
    files = FILES if format != tarfile.USTAR_FORMAT else {name: FILES[name] for name in FILES if len(name) < 100}
    assert read(shard(files, format=format)) == files
    assert read(shard({}, format=format)) == {}


def test_pax_headers_with_large_sizes_and_comments_of_the_whole_archive() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all"}) as tar:
        info = tarfile.TarInfo("x.bin")
        info.size = 5
        info.pax_headers = {"size": "5", "mtime": "1.5", "note": "a=b\nc"}
        tar.addfile(info, io.BytesIO(b"hello"))
    assert read(file.getvalue()) == {"x.bin": b"hello"}


def test_what_is_no_file_is_passed_over() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind in (("v1.0", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "x.jpg"
            tar.addfile(info)
        info = tarfile.TarInfo("x.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert read(file.getvalue()) == {"x.jpg": b"abc"}


@pytest.mark.parametrize("length", [0, 1, 511, 512, 700, 1536, 2048, 3000])
def test_what_is_cut_off_is_an_error_with_its_offset(length: int) -> None:
    tar = shard({"0.jpg": os.urandom(1000), "1.jpg": os.urandom(1000)})
    with pytest.raises(ShardError, match=r"ais://b/s.tar .*at offset \d+") as told:
        list(tar_members(tar[:length], shard="ais://b/s.tar"))
    assert 0 <= told.value.offset <= length
    assert told.value.shard == "ais://b/s.tar"


def test_a_damaged_header_is_an_error_with_its_offset() -> None:
    tar = bytearray(shard({"0.jpg": os.urandom(1000), "1.jpg": os.urandom(1000)}))
    tar[1536 + 3] ^= 1
    with pytest.raises(ShardError, match=r"damaged header .*at offset 1536"):
        list(tar_members(tar, shard="s"))


@pytest.mark.parametrize("record", [b"99 path=a\n", b"0 path=a\n", b"path=a\n", b"9 patha\n"])
def test_a_damaged_pax_header_is_an_error(record: bytes) -> None:
    head = tarfile.TarInfo("pax")
    head.type, head.size = tarfile.XHDTYPE, len(record)
    tar = head.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + shard({"x.jpg": b"1"})
    with pytest.raises(ShardError, match="damaged pax header, at offset 0"):
        list(tar_members(tar, shard="s"))


def test_a_sparse_file_is_refused() -> None:
    info = tarfile.TarInfo("s.bin")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(ShardError, match=r"sparse file 's\.bin'"):
        list(tar_members(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), shard="s"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_compressed(mode: Any) -> None:
    view = own_view(shard(FILES, mode=mode))
    plain = uncompressed(view, shard="s")
    assert (plain is view) == (mode == "w")
    assert read(bytes(plain)) == FILES
    if mode != "w":
        with pytest.raises(ShardError, match=r"cannot be decompressed .*at offset \d+"):
            uncompressed(own_view(bytes(view)[: len(view) // 2]), shard="s")


def test_what_would_decompress_zstandard_is_named_where_python_lacks_it() -> None:
    if sys.version_info >= (3, 14) or importlib.util.find_spec("zstandard"):
        pytest.skip("this Python has it")
    with pytest.raises(ShardError, match="pip install zstandard"):
        uncompressed(own_view(b"\x28\xb5\x2f\xfd" + bytes(100)), shard="s")


@pytest.mark.parametrize(("content", "what"), [(b"", "it is empty"), (b"hello" * 200, "it begins with b'hello")])
def test_what_is_no_archive_says_so(content: bytes, what: str) -> None:
    with pytest.raises(ShardError, match=f"no tar archive.*{what}"):
        uncompressed(own_view(content), shard="s")


def index_of(*names: str) -> ShardIndex:
    return ShardIndex.of(Member(name, 512 * place, place) for place, name in enumerate(names))


def samples(index: ShardIndex) -> list[tuple[str, dict[str, int]]]:
    return [(index.key(n), {extension: size for extension, _, size in index.members(n)}) for n in range(len(index))]


def test_how_members_make_samples() -> None:
    assert samples(index_of("d/a.jpg", "d/b.jpg", "d/a.cls")) == [("a", {"jpg": 0, "cls": 2}), ("b", {"jpg": 1})]
    assert samples(index_of("d/a.jpg", "e/a.jpg", "README")) == [("a", {"jpg": 0}), ("a", {"jpg": 1})]
    assert samples(index_of("a.x.png", "b.png", "c.1.png", "c.2.png")) == [
        ("a", {"png": 0}),
        ("b", {"png": 1}),
        ("c", {"1.png": 2, "2.png": 3}),
    ]
    assert samples(index_of("a.jpg", "a.jpg")) == [("a", {"jpg": 1})]  # appended again: the last one counts
    assert samples(index_of()) == []
    assert index_of("a.jpg", "b.jpg").sizes() == [0, 1]


def test_a_damaged_index_is_an_error_never_other_bytes() -> None:
    index = index_of("a.jpg", "b.cls", "b.jpg")
    whole = bytes(index.block)
    for length in range(len(whole)):
        with pytest.raises(ManifestError):
            ShardIndex(memoryview(whole[:length]))
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        try:
            found = ShardIndex(memoryview(damaged))
            samples(found)
        except ManifestError:
            continue
        assert len(found) == len(index)
