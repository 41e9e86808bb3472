"""Keys, digests and identities are part of the format on disk: these values must never change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiscache.errors import CorruptError
from aiscache.keys import ObjectRef, key_hasher, key_of_identity, pack_identity, unpack_identity, version_digest

PLAIN = ObjectRef(
    cluster="dZ2yqJqXx", provider="ais", bucket="imagenet", name="train/n01440764_10026.JPEG",
    size=110_000, checksum="9d5ed678fe57bcca", version="1",
)  # fmt: skip
FULL = ObjectRef(
    cluster="dZ2yqJqXx", provider="aws", namespace="@uuid#ns", bucket="b", name="日本語/ü \udcff", etl="resize"
)
EMPTY = ObjectRef(cluster="", provider="", bucket="", name="")

GOLDEN = [
    (PLAIN, "26f8a587017a879ec9425a6e6b321069", 0x7B94998A92F134FE),
    (FULL, "b1bc8ea634a7842dda4d2e59d8105e58", 0x28ACDE8CEEED5915),
    (EMPTY, "10e45c7ce2292320743df94ee4c78a2a", 0x28ACDE8CEEED5915),
]

parts = st.text(st.characters(codec=None), max_size=30).filter(
    lambda text: not any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in text)
)


@pytest.mark.parametrize(("ref", "key", "digest"), GOLDEN)
def test_golden_vectors(ref: ObjectRef, key: str, digest: int) -> None:
    assert ref.key.hex() == key
    assert ref.digest == digest


def test_the_identity_is_length_prefixed() -> None:
    assert pack_identity(ObjectRef(cluster="c", provider="ais", bucket="bk", name="n")) == (
        b"\1\0\0\0c" b"\3\0\0\0ais" b"\0\0\0\0" b"\2\0\0\0bk" b"\0\0\0\0" b"\1\0\0\0n"
    )  # fmt: skip


@given(parts, parts, parts, parts, parts, parts)
def test_identities_come_back_and_their_hash_is_the_key(
    cluster: str, provider: str, namespace: str, bucket: str, etl: str, name: str
) -> None:
    ref = ObjectRef(cluster=cluster, provider=provider, namespace=namespace, bucket=bucket, etl=etl, name=name)
    # a lone surrogate that stands for a byte may, with its neighbours, spell a character: the bytes are what counts
    again = unpack_identity(pack_identity(ref))
    assert pack_identity(again) == pack_identity(ref)
    assert key_of_identity(pack_identity(ref)) == ref.key
    assert key_hasher(cluster, provider, namespace, bucket, etl)(name) == ref.key


@given(st.binary(max_size=200))
def test_any_bytes_are_an_identity_or_a_corrupt_error(data: bytes) -> None:
    try:
        ref = unpack_identity(data)
    except CorruptError:
        return
    assert pack_identity(ref) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\1", "ends inside a length"),
        (b"\5\0\0\0ab", "ends inside a part"),
        (b"", "has 0 parts instead of 6"),
        (b"\0\0\0\0" * 7, "has 7 parts instead of 6"),
    ],
)
def test_what_is_wrong_with_an_identity_is_said(data: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        unpack_identity(data)


def test_every_part_changes_the_key_and_none_runs_into_the_next() -> None:
    refs = [
        ObjectRef(cluster="ab", provider="c", bucket="d", name="e"),
        ObjectRef(cluster="a", provider="bc", bucket="d", name="e"),
        ObjectRef(cluster="ab", provider="c", bucket="de", name=""),
        ObjectRef(cluster="ab", provider="c", bucket="", name="de"),
        ObjectRef(cluster="ab", provider="c", namespace="d", bucket="", name="e"),
        ObjectRef(cluster="ab", provider="c", bucket="d", etl="e", name=""),
        ObjectRef(cluster="ab", provider="c", bucket="d", name="e", etl="x"),
    ]
    assert len({ref.key for ref in refs}) == len(refs)


def test_size_checksum_and_version_change_the_digest_and_not_the_key() -> None:
    versions = [(-1, "", ""), (0, "", ""), (1, "", ""), (1, "a", ""), (1, "", "a"), (1, "a", "b"), (1, "ab", "")]
    refs = [
        ObjectRef(cluster="c", provider="ais", bucket="b", name="n", size=size, checksum=checksum, version=version)
        for size, checksum, version in versions
    ]
    assert len({ref.digest for ref in refs}) == len(versions)
    assert len({ref.key for ref in refs}) == 1
    assert all(0 <= version_digest(*one) < 1 << 64 for one in versions)


def test_urls_are_what_people_write() -> None:
    assert PLAIN.url == "ais://imagenet/train/n01440764_10026.JPEG"
    assert FULL.url == "aws://@uuid#ns/b/日本語/ü \udcff (ETL 'resize')"
