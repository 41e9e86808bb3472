"""What the client does with bytes that are not what was promised. Promise 1: never wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import xxhash
from rawserver import CLOSE, RawServer, Request, object_response, redirect, response, smap

from aiscache.errors import ChecksumMismatchError, ObjectChangedError, OriginError, UnreachableError
from aiscache.keys import ObjectRef
from aiscache.origin import HeapBody, HeapSink, Origin

GOOD, BAD = b"good bytes" * 3000, b"g00d bytes" * 3000
SUM = xxhash.xxh64_hexdigest(GOOD)
MakeOrigin = Callable[..., Origin]
MakeRef = Callable[..., ObjectRef]


class Cluster:
    """A proxy and one target whose answers to GETs come from a list; the last one is repeated."""

    def __init__(self, *answers: object, via_proxy: object = None) -> None:
        self.answers = list(answers)
        self.target = RawServer(self._target)
        self.proxy = RawServer(self._proxy)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()
        self.target.__exit__()

    def _target(self, _request: Request) -> object:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def _proxy(self, request: Request) -> bytes:
        if "what=smap" in request.path:
            return smap(self.target.url)
        return redirect(f"{self.target.url}{request.path}&pid=p&utm=1")


def test_a_flipped_bit_is_fetched_once_more_through_the_proxy(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(BAD, checksum=SUM), object_response(GOOD)) as cluster:
        sink = HeapSink()
        fetched = origin_at(cluster.proxy.url).fetch_one(ref(size=len(GOOD), checksum=SUM), sink)
        assert bytes(fetched.result()) == GOOD
        assert fetched.verified
        assert fetched.attempts == 2
        assert len(cluster.proxy.gets()) == 1


def test_a_retry_of_the_same_size_reuses_the_body(origin_at: MakeOrigin, ref: MakeRef) -> None:
    opened: list[tuple[int, int]] = []

    class Counting(HeapSink):
        def open(self, index: int, size: int) -> HeapBody:
            opened.append((index, size))
            return super().open(index, size)

    with Cluster(object_response(BAD, checksum=SUM), object_response(GOOD)) as cluster:
        origin_at(cluster.proxy.url).fetch_one(ref(), Counting())
    assert opened == [(0, len(GOOD))]


def test_lasting_damage_names_object_target_and_checksums(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(BAD, checksum=SUM)) as cluster:
        with pytest.raises(ChecksumMismatchError) as caught:
            origin_at(cluster.proxy.url).fetch_one(ref("a/b"), HeapSink())
        text = str(caught.value)
        for part in ("ais://b/a/b", cluster.target.url, cluster.proxy.url, SUM, xxhash.xxh64_hexdigest(BAD)):
            assert part in text
        assert len(cluster.target.gets()) == 2
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.expected, again.found) == (text, SUM, xxhash.xxh64_hexdigest(BAD))


def test_the_clusters_own_bad_checksum_answer_is_damage(origin_at: MakeOrigin, ref: MakeRef) -> None:
    said = b'{"tcode":"ErrBadCksum","message":"BAD DATA CHECKSUM: xxhash2(5d27 != d7f4)","status":500}'
    with (
        Cluster(response(said, "500 Internal Server Error")) as cluster,
        pytest.raises(ChecksumMismatchError, match="BAD DATA"),
    ):
        origin_at(cluster.proxy.url).fetch_one(ref(), HeapSink())


def test_an_overwritten_object_names_both_checksums(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(GOOD, version="2")) as cluster:
        old = ref(size=len(GOOD), checksum="0123456789abcdef", version="1")
        with pytest.raises(ObjectChangedError) as caught:
            origin_at(cluster.proxy.url).fetch_one(old, HeapSink())
        assert "0123456789abcdef" in str(caught.value)
        assert SUM in str(caught.value)
        assert "versions 1 and 2" in str(caught.value)
        # Asked once more through the proxy: the owner may have been in maintenance and stale.
        assert len(cluster.proxy.gets()) == 1


def test_a_stale_old_owner_is_not_believed(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(BAD, version="1"), object_response(GOOD, version="2")) as cluster:
        fetched = origin_at(cluster.proxy.url).fetch_one(ref(checksum=SUM, version="2"), HeapSink())
        assert bytes(fetched.result()) == GOOD


def test_the_same_bytes_under_another_version_are_taken(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(GOOD, version="7")) as cluster:
        fetched = origin_at(cluster.proxy.url).fetch_one(ref(size=len(GOOD), checksum=SUM, version="3"), HeapSink())
        assert fetched.attempts == 1
        assert fetched.version == "7"


@pytest.mark.parametrize("old", [{"size": 5}, {"version": "6"}])
def test_without_checksums_size_and_version_decide(origin_at: MakeOrigin, ref: MakeRef, old: dict[str, object]) -> None:
    with Cluster(response(GOOD, Ais_Version="7")) as cluster:
        with pytest.raises(ObjectChangedError):
            origin_at(cluster.proxy.url).fetch_one(ref(**old), HeapSink())
        fetched = origin_at(cluster.proxy.url).fetch_one(ref(size=len(GOOD), version="7"), HeapSink())
        assert not fetched.verified


def test_checksums_of_another_type_say_nothing(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(GOOD)) as cluster:
        md5_of_the_cloud = "5eb63bbbe01eeed093cb22bb8f5acdc3"
        fetched = origin_at(cluster.proxy.url).fetch_one(ref(size=len(GOOD), checksum=md5_of_the_cloud), HeapSink())
        assert fetched.verified


def test_unknown_checksum_types_warn_once(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(GOOD, kind="newhash")) as cluster:
        origin = origin_at(cluster.proxy.url)
        with pytest.warns(UserWarning, match="newhash"):
            fetched = origin.fetch_one(ref(), HeapSink())
        assert not fetched.verified
        assert not origin.fetch_one(ref(), HeapSink()).verified


def test_a_body_that_ends_early_is_fetched_again(origin_at: MakeOrigin, ref: MakeRef) -> None:
    short = [object_response(GOOD)[:-500], CLOSE]
    with Cluster(short, object_response(GOOD)) as cluster:
        assert bytes(origin_at(cluster.proxy.url).fetch_one(ref(), HeapSink()).result()) == GOOD
    with Cluster(short) as cluster:
        with pytest.raises(UnreachableError, match=f"{len(GOOD) - 500:,} of {len(GOOD):,} bytes"):
            origin_at(cluster.proxy.url).fetch_one(ref(), HeapSink())
        assert len(cluster.target.gets()) == 3


def test_bytes_after_the_body_are_not_taken(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster(object_response(GOOD) + b"trailing garbage") as cluster:
        origin = origin_at(cluster.proxy.url)
        for _ in range(3):
            assert bytes(origin.fetch_one(ref(), HeapSink()).result()) == GOOD


def chunked(body: bytes, *, end: bytes = b"0\r\n\r\n", headers: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode()
    pieces = [body[start : start + 7000] for start in range(0, len(body), 7000)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def test_a_body_without_length_goes_to_the_sink_when_it_is_known(origin_at: MakeOrigin, ref: MakeRef) -> None:
    big = GOOD * 200
    with Cluster(chunked(big)) as cluster:
        sink = HeapSink()
        fetched = origin_at(cluster.proxy.url).fetch_one(ref(etl="e", size=3, checksum="0" * 16), sink)
        assert bytes(sink.bodies[0]) == big
        assert fetched.size == len(big)
    with Cluster(chunked(b"")) as cluster:
        assert origin_at(cluster.proxy.url).fetch_one(ref(etl="e", size=3), HeapSink()).size == 0


def test_a_chunked_body_that_breaks_off_is_no_object(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster([chunked(GOOD, end=b""), CLOSE]) as cluster, pytest.raises(UnreachableError):
        origin_at(cluster.proxy.url).fetch_one(ref(etl="e"), HeapSink())


def test_a_chunked_body_is_held_against_checksum_and_size(origin_at: MakeOrigin, ref: MakeRef) -> None:
    headers = f"Ais-Checksum-Type: xxhash\r\nAis-Checksum-Value: {SUM}\r\n"
    with Cluster(chunked(BAD, headers=headers)) as cluster, pytest.raises(ChecksumMismatchError):
        origin_at(cluster.proxy.url).fetch_one(ref(), HeapSink())
    with Cluster(chunked(GOOD, headers=headers)) as cluster, pytest.raises(ObjectChangedError):
        origin_at(cluster.proxy.url).fetch_one(ref(size=3), HeapSink())


def test_a_body_that_ends_with_the_connection_may_be_short(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with Cluster([b"HTTP/1.1 200 OK\r\n\r\nabc", CLOSE]) as cluster, pytest.raises(UnreachableError, match="length"):
        origin_at(cluster.proxy.url).fetch_one(ref(), HeapSink())


@pytest.mark.parametrize(
    "garbage",
    [
        [b"garbage\r\n\r\n", CLOSE],
        [b"HTTP/1.1 abc\r\n\r\n", CLOSE],
        [b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\nx", CLOSE],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx", CLOSE],
        [b"\x00\xff\xfe" * 100, CLOSE],
        [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 302 Found\r\nLocation: ftp://x/y\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 302 Found\r\nLocation: :::\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 500 x\r\nContent-Length: 3\r\n\r\n\xff\xfe{"],
        [b"HTTP/1.1 404 x\r\nContent-Length: 9\r\n\r\n<html>no<"],
        [b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc"],
    ],
    ids=range(11),
)
def test_garbage_is_an_error_of_ours(origin_at: MakeOrigin, ref: MakeRef, garbage: list[object]) -> None:
    with Cluster(garbage) as cluster, pytest.raises(OriginError) as caught:
        origin_at(cluster.proxy.url).fetch_one(ref(size=10, checksum="0" * 16), HeapSink())
    assert "ais://b/x" in str(caught.value)


def test_what_the_sink_raises_ends_the_fetch(origin_at: MakeOrigin, ref: MakeRef) -> None:
    class Full(HeapSink):
        def open(self, index: int, size: int) -> HeapBody:
            raise KeyboardInterrupt if index else OSError(28, "disk full")

    class Wrong(HeapSink):
        def open(self, index: int, size: int) -> HeapBody:
            return super().open(index, size + 1)

    with Cluster(object_response(GOOD)) as cluster:
        origin = origin_at(cluster.proxy.url)
        with pytest.raises(OSError, match="disk full"):
            list(origin.fetch([ref()] * 3, Full(), in_flight=1))
        with pytest.raises(ValueError, match="sink opened a body of"):
            list(origin.fetch([ref()], Wrong()))
        assert [fetched.error for fetched in origin.fetch([ref()] * 20, HeapSink())] == [None] * 20
