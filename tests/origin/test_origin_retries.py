"""Servers that refuse, break off, stay silent or are gone. Promise 3: never stuck."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from rawserver import CLOSE, RESET, RawServer, Request, object_response, redirect, refusal, response, smap

from aiscache.errors import (
    AuthenticationError,
    ObjectNotFoundError,
    OriginError,
    OriginTimeoutError,
    UnreachableError,
)
from aiscache.keys import ObjectRef
from aiscache.origin import BucketName, HeapSink, Origin, RetryPolicy

BODY = b"body" * 5000
MakeOrigin = Callable[..., Origin]
MakeRef = Callable[..., ObjectRef]
QUICK = RetryPolicy(status_retries=2, backoff_s=0.02, network_attempts=3, network_waits_s=((0.01, 0.02),))


def single(*answers: object) -> RawServer:
    """A node that is proxy and target; its answers to GETs of objects come in turn, the last one is repeated."""
    left = list(answers)

    def answer(request: Request) -> object:
        if "what=smap" in request.path:
            return smap(server.url)
        return left.pop(0) if len(left) > 1 else left[0]

    server = RawServer(answer)
    return server


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable"])
def test_statuses_of_the_policy_are_tried_again(origin_at: MakeOrigin, ref: MakeRef, status: str) -> None:
    with single(refusal(status), refusal(status, "", "", Retry_After="0"), object_response(BODY)) as server:
        fetched = origin_at(server.url).fetch_one(ref(), HeapSink())
        assert bytes(fetched.result()) == BODY
        assert fetched.attempts == 3
    with single(refusal(status, "ErrX", "the disk is full")) as server:
        with pytest.raises(OriginError, match=f"HTTP {status[:3]}.*after 3 tries.*the disk is full") as caught:
            origin_at(server.url).fetch_one(ref(), HeapSink())
        assert caught.value.status == int(status[:3])  # type: ignore[attr-defined]


def test_other_statuses_are_not(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with single(refusal("416 Range", "ErrX", "no such range")) as server:
        with pytest.raises(OriginError, match="no such range"):
            origin_at(server.url).fetch_one(ref(), HeapSink())
        assert len(server.gets()) == 2  # the target, then the proxy


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_bad_credentials_say_so_and_do_not_show(origin_at: MakeOrigin, ref: MakeRef, status: str) -> None:
    with single(refusal(status, "ErrToken", "token expired")) as server:
        origin = origin_at(server.url, token="s3cret")
        with pytest.raises(AuthenticationError, match="token expired") as caught:
            origin.fetch_one(ref(), HeapSink())
        with pytest.raises(AuthenticationError):
            list(origin.list_pages(BucketName(name="b")))
        assert "s3cret" not in f"{caught.value!r} {caught.value.__dict__} {origin!r} {origin.settings!r}"
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer s3cret"}


def test_a_retry_does_not_hold_up_the_others(origin_at: MakeOrigin, ref: MakeRef) -> None:
    struck: list[str] = []

    def answer(request: Request) -> object:
        if "what=smap" in request.path:
            return smap(server.url)
        if "/slow" in request.path and not struck:
            struck.append(request.path)
            return refusal("503 Service Unavailable", "", "", Retry_After="1")
        return object_response(BODY)

    with RawServer(answer) as server:
        origin = origin_at(server.url)
        results = list(origin.fetch([ref("slow"), *(ref(f"o{n}") for n in range(50))], HeapSink(), in_flight=4))
        assert results[-1].ref.name == "slow"
        assert all(fetched.error is None for fetched in results)


@pytest.mark.parametrize(
    "broken", [[CLOSE], [RESET], [object_response(BODY)[:1000], RESET], [b"HTTP/1.1 200 OK\r\n", CLOSE]]
)
def test_broken_connections_are_tried_again(origin_at: MakeOrigin, ref: MakeRef, broken: list[object]) -> None:
    with single(broken, object_response(BODY)) as server:
        assert bytes(origin_at(server.url).fetch_one(ref(), HeapSink()).result()) == BODY
    with single(broken) as server, pytest.raises(UnreachableError, match="in 3 tries"):
        origin_at(server.url).fetch_one(ref(), HeapSink())


def test_a_silent_server_times_out(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with single([30.0]) as server:
        origin = origin_at(server.url, connect_timeout_s=0.2, read_timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(OriginTimeoutError, match="3 tries"):
            origin.fetch_one(ref(), HeapSink())
        assert time.monotonic() - began < 6


def test_a_server_that_stops_in_the_middle_times_out(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with single([object_response(BODY)[:5000], 30.0], object_response(BODY)) as server:
        origin = origin_at(server.url, read_timeout_s=0.3)
        assert bytes(origin.fetch_one(ref(), HeapSink()).result()) == BODY


def test_a_slow_but_moving_download_does_not_fail(origin_at: MakeOrigin, ref: MakeRef) -> None:
    data = object_response(BODY)
    slowly = [part for start in range(0, len(data), 1500) for part in (data[start : start + 1500], 0.1)]
    with single(slowly) as server:
        origin = origin_at(server.url, read_timeout_s=0.5)
        fetched = origin.fetch_one(ref(), HeapSink())
        assert fetched.attempts == 1
        assert fetched.verified


def test_an_endless_drip_ends(origin_at: MakeOrigin, ref: MakeRef) -> None:
    policy = RetryPolicy(status_retries=0, network_attempts=1, network_waits_s=())
    drip = [response(b"", Content_Length="100000"), *[part for _ in range(600) for part in (b"x", 0.05)]]
    with single(drip) as server:
        origin = origin_at(server.url, connect_timeout_s=0.3, read_timeout_s=0.5, retry=policy)
        with pytest.raises(OriginTimeoutError, match=r"1 try: only \d+ bytes came in"):
            origin.fetch_one(ref(), HeapSink())


def test_nobody_listens(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    origin = origin_at(url)
    results = list(origin.fetch([ref(), ref("y")], HeapSink()))
    assert [type(fetched.error) for fetched in results] == [UnreachableError] * 2
    assert url in str(results[0].error)
    with pytest.raises(UnreachableError, match="cluster map"):
        _ = origin.uuid
    with pytest.raises(UnreachableError, match=url):
        list(origin.list_pages(BucketName(name="b")))


def test_something_else_than_a_proxy(origin_at: MakeOrigin) -> None:
    with RawServer(lambda _: response(b"<html>")) as server, pytest.raises(OriginError, match="URL of an AIS proxy"):
        _ = origin_at(server.url).uuid
    with RawServer(lambda _: response(b"", "404 Not Found")) as server, pytest.raises(OriginError, match="AIS proxy"):
        _ = origin_at(server.url).uuid


def test_a_dead_target_is_asked_for_through_the_proxy(origin_at: MakeOrigin, ref: MakeRef) -> None:
    """The map names a target that is gone; the proxy knows better, and so does the next map."""
    with single(object_response(BODY)) as alive, socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        maps = [smap(dead), smap(alive.url, version="2")]

        def answer(request: Request) -> bytes:
            if "what=smap" in request.path:
                return maps.pop(0) if len(maps) > 1 else maps[0]
            return redirect(alive.url + request.path)

        with RawServer(answer) as proxy:
            origin = origin_at(proxy.url)
            for _ in range(2):
                results = list(origin.fetch([ref(f"o{n}") for n in range(40)], HeapSink(), in_flight=8))
                assert all(fetched.verified for fetched in results)
            asked_for_map = sum("what=smap" in request.path for request in proxy.requests)
            assert asked_for_map == 2  # once at first, once for all failures together
            assert origin.cluster_map().version == "2"
            assert results[0].attempts == 1


def test_a_redirect_to_a_dead_target_is_tried_until_the_proxy_knows(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with single(object_response(BODY)) as alive, socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        goals = [dead, alive.url]

        def answer(request: Request) -> bytes:
            if "what=smap" in request.path:
                return smap(dead)
            return redirect((goals.pop(0) if len(goals) > 1 else goals[0]) + request.path)

        with RawServer(answer) as proxy:
            fetched = origin_at(proxy.url).fetch_one(ref(), HeapSink())
            assert fetched.attempts == 3
            assert fetched.target == alive.url


def test_not_found_is_believed_of_the_proxy_only(origin_at: MakeOrigin, ref: MakeRef) -> None:
    missing = refusal("404 Not Found", "ErrNotFound", "t[x]: ais://b/x does not exist")
    with single(missing, object_response(BODY)) as server:
        assert origin_at(server.url).fetch_one(ref(), HeapSink()).verified
    with single(missing) as server, pytest.raises(ObjectNotFoundError):
        origin_at(server.url).fetch_one(ref(), HeapSink())


def test_redirects_with_raw_characters_and_loops(origin_at: MakeOrigin, ref: MakeRef) -> None:
    with single(object_response(BODY)) as target:

        def answer(request: Request) -> bytes:
            if "what=smap" in request.path:
                return smap()
            if "loop" in request.path:
                return redirect(proxy.url + request.path)
            return redirect(target.url + '/v1/objects/b/back\\slash "x".txt?provider=ais&pid=p')

        with RawServer(answer) as proxy:
            origin = origin_at(proxy.url)
            assert origin.fetch_one(ref('back\\slash "x".txt'), HeapSink()).verified
            assert target.gets() == ["/v1/objects/b/back%5Cslash%20%22x%22.txt?provider=ais&pid=p"]
            with pytest.raises(OriginError, match="too many redirects"):
                origin.fetch_one(ref("loop"), HeapSink())


def test_an_idle_connection_that_the_server_closed_is_no_failure(origin_at: MakeOrigin, ref: MakeRef) -> None:
    """The server closes when the second request of a connection arrives: as if the close had crossed it on its way."""
    seen: list[str] = []

    def answer(request: Request) -> object:
        if "what=smap" in request.path:
            return smap(server.url)
        seen.append(request.path)
        return [CLOSE] if len(seen) == 2 else object_response(BODY)

    with RawServer(answer) as server:
        origin = origin_at(server.url)
        assert origin.fetch_one(ref(), HeapSink()).attempts == 1
        assert origin.fetch_one(ref(), HeapSink()).attempts == 1
        assert len(seen) == 3


def test_a_consumer_that_takes_its_time_is_no_timeout(origin_at: MakeOrigin, ref: MakeRef) -> None:
    data = object_response(BODY)
    with single([data[:3000], 0.2, data[3000:]]) as server:
        origin = origin_at(server.url, connect_timeout_s=0.4, read_timeout_s=0.5)
        attempts = []
        for fetched in origin.fetch([ref(f"o{n}") for n in range(4)], HeapSink(), in_flight=2):
            attempts.append(fetched.attempts)
            time.sleep(0.6)
        assert attempts == [1] * 4
