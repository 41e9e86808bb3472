"""A view is read-only for numpy, free of charge for torch, and a file for those who want files."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiscache.view import View, own_view

DATA = random.Random(1).randbytes(10_000)


@pytest.mark.parametrize("data", [DATA, bytearray(DATA), memoryview(DATA), np.frombuffer(DATA, np.uint8)])
def test_it_is_an_array_of_bytes(data: bytes) -> None:
    view = own_view(data)
    assert isinstance(view, View)
    assert view.dtype == np.uint8
    assert view.shape == (10_000,)
    assert bytes(view) == DATA
    assert memoryview(view) == DATA
    assert np.frombuffer(view, np.uint8).tobytes() == DATA
    assert io.BytesIO(view).read() == DATA
    assert bytes(view[10:20]) == DATA[10:20]


def test_numpy_refuses_to_write() -> None:
    view = own_view(bytearray(DATA))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        view += 1
    with pytest.raises(ValueError, match="read-only"):
        np.add(view, 1, out=view)
    assert memoryview(view).readonly


def test_a_copy_may_be_written() -> None:
    copy = own_view(DATA).copy()
    copy[0] ^= 1
    assert bytes(copy)[1:] == DATA[1:]


def test_a_tensor_over_the_same_bytes_without_a_warning() -> None:
    import torch

    view = own_view(DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = view.tensor()
    assert tensor.dtype == torch.uint8
    assert tensor.shape == (10_000,)
    assert tensor.data_ptr() == view.__array_interface__["data"][0]
    del view
    assert tensor.numpy().tobytes() == DATA, "it keeps the bytes alive"


def test_a_tensor_of_its_own() -> None:
    view = own_view(DATA)
    tensor = view.tensor(copy=True)
    tensor[0] ^= 1
    assert tensor.numpy().tobytes()[1:] == DATA[1:]
    assert bytes(view) == DATA


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")])
def test_an_empty_view(empty: bytes) -> None:
    view = own_view(empty)
    assert bytes(view) == b""
    assert view.shape == (0,)
    assert view.tensor().shape == (0,)
    assert view.tensor(copy=True).shape == (0,)
    assert view.file().read() == b""


def test_a_file_for_those_who_parse() -> None:
    """PNG's structure, read as image libraries do: sniff, seek back, headers, skip, tell."""
    chunks = [(b"IHDR", DATA[:13]), (b"IDAT", DATA[:5000]), (b"IEND", b"")]
    image = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    file = own_view(image).file()
    assert file.readable()
    assert file.seekable()
    assert not file.writable()
    assert file.read(16)[:8] == image[:8]
    file.seek(8)
    for kind, body in chunks:
        length, found = struct.unpack(">I4s", file.read(8))
        assert (length, found) == (len(body), kind)
        file.seek(length + 4, io.SEEK_CUR)
    assert file.tell() == len(image)
    assert file.read(1) == b""
    assert file.seek(-12, io.SEEK_END) == len(image) - 12
    assert file.read()[4:8] == b"IEND"
    buffer = bytearray(8)
    file.seek(0)
    assert file.readinto(buffer) == 8
    assert buffer == image[:8]


@given(st.binary(max_size=50), st.lists(st.tuples(st.integers(-60, 60), st.integers(0, 3), st.integers(-1, 60))))
def test_a_file_does_what_bytes_io_does(data: bytes, moves: list[tuple[int, int, int]]) -> None:
    file, model = own_view(data).file(), io.BytesIO(data)
    for offset, whence, length in moves:
        base = {0: 0, 1: model.tell(), 2: len(data)}.get(whence)
        if base is None or base + offset < 0:
            with pytest.raises(ValueError, match=r"seek|whence"):
                file.seek(offset, whence)
            continue
        assert file.seek(offset, whence) == model.seek(offset, whence)
        assert file.read(length) == model.read(length)
        assert file.tell() == model.tell()


def test_the_file_keeps_the_bytes_alive() -> None:
    assert own_view(bytearray(DATA)).file().read() == DATA


def test_numpy_arithmetic_gives_arrays() -> None:
    view = own_view(DATA)
    assert int((view.astype(np.int64) * 2).sum()) == 2 * sum(DATA)
    assert (view == np.frombuffer(DATA, np.uint8)).all()
