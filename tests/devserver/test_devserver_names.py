"""Every name that AIStore takes (recorded: 016-033)."""

from __future__ import annotations

import pytest
from aistore.sdk import Bucket
from aistore.sdk.errors import AISError
from wire import follow

NAMES = [
    "a/b/c.txt",
    "with space.txt",
    "uni/ключ-日本.txt",
    "pct%20x%.txt",
    "q?x#y&z=1.txt",
    "plus+x.txt",
    "tilde~quote'\"x.txt",
    "semi;colon:at@x,eq=.txt",
    "back\\slash.txt",
    "dbl//slash",
    "x" * 1100,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12].encode("ascii", "replace").decode())
def test_put_head_get_through_proxy_and_directly(bucket: Bucket, name: str) -> None:
    thing = bucket.object(name)
    thing.get_writer().put_content(name.encode())
    assert thing.get_reader().read_all() == name.encode()
    assert thing.get_reader(direct=True).read_all() == name.encode()
    assert thing.head().size == len(name.encode())


def test_listing_tells_all_names_but_those_with_doubled_slashes(bucket: Bucket) -> None:
    for name in NAMES:
        bucket.object(name).get_writer().put_content(b"x")
    listed = [entry.name for entry in bucket.list_all_objects()]
    assert listed == sorted(set(NAMES) - {"dbl//slash"})


def test_leading_slash_can_be_put_and_got_but_is_not_listed(bucket: Bucket) -> None:
    bucket.object("/leading").get_writer().put_content(b"zz")
    assert bucket.object("/leading").get_reader().read_all() == b"zz"
    assert bucket.list_all_objects() == []


def test_newline_becomes_a_space(bucket: Bucket) -> None:
    bucket.object("ctl\nnl").get_writer().put_content(b"zz")
    assert bucket.object("ctl\nnl").get_reader().read_all() == b"zz"
    assert [entry.name for entry in bucket.list_all_objects()] == ["ctl nl"]


def test_trailing_slash_is_refused(bucket: Bucket) -> None:
    with pytest.raises(AISError, match="invalid object name"):
        bucket.object("trailing/").get_writer().put_content(b"zz")


def test_nul_is_refused(endpoint: str, bucket: Bucket) -> None:
    answer = follow(endpoint, "PUT", f"/v1/objects/{bucket.name}/nul%00x?provider=ais", b"zz")
    assert answer.status == 500
    assert b"invalid argument" in answer.body


def test_missing_name_is_refused(endpoint: str, bucket: Bucket) -> None:
    answer = follow(endpoint, "PUT", f"/v1/objects/{bucket.name}?provider=ais", b"zz")
    assert answer.status == 400
    assert b"is too short: expected 4 items, got 3" in answer.body
