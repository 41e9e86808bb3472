"""A manifest gives back what went in, and says so when it cannot. Promise 1: never wrong."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiscache.errors import ManifestError
from aiscache.keys import ObjectRef
from aiscache.manifest import Draft, Manifest, Source
from aiscache.manifest.draft import content_hash
from aiscache.manifest.layout import PREFIX

NAMES = st.text(st.characters(exclude_categories=[]), max_size=20)  # lone surrogates included
SOURCES = st.builds(
    Source,
    cluster=st.text("abc", max_size=3),
    endpoint=st.just("http://h"),
    provider=st.sampled_from(["ais", "aws"]),
    namespace=st.sampled_from(["", "@#ns", "@id#ns"]),
    bucket=st.sampled_from(["b", "c"]),
)
ROWS = st.tuples(
    NAMES.map(lambda name: name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")),
    st.integers(-1, 2**62),
    st.sampled_from(["", "0123456789abcdef", "c99465aa"]),
    st.sampled_from(["", "1", "10", "v-\u043a"]),
)
PAGES = st.lists(st.tuples(SOURCES, st.lists(ROWS, max_size=6)), max_size=4)


def drafted(pages: list[tuple[Source, list[tuple[str, int, str, str]]]], etl: str) -> tuple[Draft, list[ObjectRef]]:
    draft, refs = Draft(etl=etl), []
    for source, rows in pages:
        draft.begin(source)
        columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
        draft.extend(columns[0], sizes=columns[1], checksums=columns[2], versions=columns[3])
        refs += [
            ObjectRef(
                cluster=source.cluster, provider=source.provider, namespace=source.namespace, bucket=source.bucket,
                etl=etl, name=name, size=size, checksum=checksum, version=version,
            )
            for name, size, checksum, version in rows
        ]  # fmt: skip
    return draft, refs


@settings(deadline=None)
@given(pages=PAGES, etl=st.sampled_from(["", "resize"]))
def test_what_goes_in_comes_out(pages: list, etl: str) -> None:
    draft, refs = drafted(pages, etl)
    manifest = Manifest.of_bytes(b"".join(draft.parts()))
    assert len(manifest) == len(draft) == len(refs)
    assert list(manifest) == refs
    assert [manifest.name(index) for index in range(len(refs))] == [ref.name for ref in refs]
    assert [manifest.key(index) for index in range(len(refs))] == [ref.key for ref in refs]
    assert [bytes(key) for key in manifest.keys] == [ref.key for ref in refs]
    assert manifest.digests.tolist() == [ref.digest for ref in refs]
    assert manifest.sizes.tolist() == [ref.size for ref in refs] == [manifest.size(n) for n in range(len(refs))]
    assert manifest.total_bytes == sum(ref.size for ref in refs if ref.size > 0)
    assert [manifest.bucket(index).bucket for index in range(len(refs))] == [ref.bucket for ref in refs]
    assert [manifest.sources[n].bucket for n in manifest.source_indices] == [ref.bucket for ref in refs]
    assert list(pickle.loads(pickle.dumps(manifest))) == refs
    some = [*range(len(refs)), *range(0, len(refs), 2)]
    assert manifest.names_of(some) == [refs[index].name for index in some]
    assert manifest.identities(some) == ([refs[index].key for index in some], [refs[index].digest for index in some])


def test_indices(draft: Callable[..., Draft]) -> None:
    manifest = Manifest.of_bytes(b"".join(draft(5).parts()))
    assert manifest[-1] == manifest[4]
    assert manifest.key(-5) == manifest.key(0)
    for index in (5, -6):
        for read in (manifest.ref, manifest.key, manifest.name, manifest.size, manifest.bucket):
            with pytest.raises(IndexError, match=f"object {index} of 5"):
                read(index)
        with pytest.raises(IndexError, match=f"object {index} of 5"):
            manifest.identities([0, index, 1])
    assert manifest.identities([-1, 2]) == manifest.identities([4, 2])


def test_views_are_read_only_and_aligned(draft: Callable[..., Draft]) -> None:
    manifest = Manifest.of_bytes(b"".join(draft(100).parts()))
    for view in (manifest.keys, manifest.digests, manifest.sizes, manifest.source_indices):
        assert not view.flags.writeable
        assert len(view) == 100
    assert all(offset % 64 == 0 for offset, _ in manifest._header.sections.values())
    assert manifest.keys.dtype == np.uint8
    assert manifest.keys.shape == (100, 16)


def test_content_names_the_content(draft: Callable[..., Draft]) -> None:
    assert content_hash(draft(9).parts()) == content_hash(draft(9).parts())
    others = [draft(8), draft(9, size=8), draft(9, version="2"), draft(9, checksum="0123456789abcdee")]
    assert len({content_hash(other.parts()) for other in [draft(9), *others]}) == 5


def test_a_file_pickles_as_its_path_and_is_shared(tmp_path: Path, draft: Callable[..., Draft]) -> None:
    path = tmp_path / "x.manifest"
    path.write_bytes(b"".join(draft(10_000).parts()))
    manifest = Manifest.open(str(path))
    data = pickle.dumps(manifest)
    assert len(data) < 1000
    assert pickle.loads(data) is manifest is Manifest.open(str(path))


@pytest.mark.parametrize("content", [b"", b"x", b"AISCMANI" + bytes(100), b"\x00" * 4096], ids=range(4))
def test_what_is_no_manifest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.manifest"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"x\.manifest"):
        Manifest.open(str(path))
    with pytest.raises(ManifestError, match="cannot be opened"):
        Manifest.open(str(tmp_path / "nosuch"))


def test_another_format_says_so(draft: Callable[..., Draft]) -> None:
    data = bytearray(b"".join(draft(3).parts()))
    data[8:12] = struct.pack("<I", 99)
    with pytest.raises(ManifestError, match="format 99"):
        Manifest.of_bytes(bytes(data))


GOOD = [
    (Source("u", "http://h", "ais", "", "b"), [(f"name{n * n}", n, "0123456789abcdef", str(n)) for n in range(20)]),
    (Source("u", "http://h", "ais", "", "c"), [("other", 5, "", "")]),
]


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_is_found_and_never_read(data: st.DataObject) -> None:
    draft, refs = drafted(GOOD, "")
    whole = bytearray(b"".join(draft.parts()))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        manifest = Manifest.of_bytes(bytes(whole))
    except ManifestError:
        return
    assert list(manifest) == refs  # only the padding was hit, or the same bit twice


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_that_hides_from_the_hashes_does_not_crash(data: st.DataObject) -> None:
    """As for a reader that trusts the file (a pickled path), and for one who forges the hashes."""
    draft, _ = drafted(GOOD, "")
    whole = bytearray(b"".join(draft.parts()))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(PREFIX.size, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    magic, number, text_bytes, file_bytes, *_ = PREFIX.unpack_from(whole)
    start = -(-(PREFIX.size + text_bytes) // 64) * 64
    hashes = (
        xxhash.xxh3_64_intdigest(whole[PREFIX.size : PREFIX.size + text_bytes]),
        xxhash.xxh3_64_intdigest(whole[start:]),
    )
    PREFIX.pack_into(whole, 0, magic, number, text_bytes, file_bytes, *hashes)
    try:
        manifest = Manifest.of_bytes(bytes(whole))
    except ManifestError:
        return
    for index in range(min(len(manifest), 100)):
        try:
            manifest.ref(index)
        except ManifestError:
            continue
    assert len(manifest.keys) == len(manifest.sizes) == len(manifest.digests) == len(manifest)
