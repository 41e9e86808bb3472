"""Every checksum of AIS, against values recorded from a real cluster for b"hello world"."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiscache.checksums import checksum, is_known, new_hasher

HELLO = {
    "xxhash": "45ab6734b21e6968",
    "xxhash2": "45ab6734b21e6968",
    "md5": "5eb63bbbe01eeed093cb22bb8f5acdc3",
    "crc32c": "c99465aa",
    "sha256": hashlib.sha256(b"hello world").hexdigest(),
    "sha512": hashlib.sha512(b"hello world").hexdigest(),
}


@pytest.mark.parametrize("kind", HELLO)
def test_value_of_a_known_body(kind: str) -> None:
    assert checksum(kind, b"hello world") == HELLO[kind]
    assert is_known(kind)


@pytest.mark.parametrize("kind", HELLO)
@settings(deadline=None)
@given(pieces=st.lists(st.binary(max_size=40), max_size=6))
def test_pieces_make_the_same_checksum_as_the_whole(kind: str, pieces: list[bytes]) -> None:
    hasher = new_hasher(kind)
    assert hasher is not None
    for piece in pieces:
        hasher.update(memoryview(piece))
    assert hasher.hexdigest() == checksum(kind, b"".join(pieces))


@pytest.mark.parametrize("kind", ["none", ""])
def test_no_checksum_is_known_and_has_no_hasher(kind: str) -> None:
    assert new_hasher(kind) is None
    assert checksum(kind, b"x") is None
    assert is_known(kind)


@pytest.mark.parametrize("kind", ["cesxxhash", "blake3"])
def test_unknown_types_are_not_computed(kind: str) -> None:
    assert new_hasher(kind) is None
    assert not is_known(kind)
