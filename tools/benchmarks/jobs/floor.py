"""What libcurl alone reaches when every byte is thrown away: one GET an object, or Get-Batch requests for many."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.contenders import Place, bucket
from benchmarks.usage import cpu_s

_FORK = multiprocessing.get_context("fork")

Prepare = Callable[[Any], None]


def curl(place: Place, *, processes: int = 2, in_flight: int = 16) -> dict[str, float]:
    """GET each object straight from its target, `processes` times `in_flight` at a time."""
    source = bucket(place)
    smap = source.client.get_smap()
    requests: list[Prepare] = []
    names = [entry.name for entry in source.list_all_objects()]
    for name in names:
        target = smap.get_target_for_object(f"{source.get_path()}{name}")
        requests.append(_get(f"{target.public_net.direct_url}/v1/objects/{place.bucket}/{name}?provider=ais"))
    return _measure(requests, objects=len(names), processes=processes, in_flight=in_flight)


def batch(place: Place, *, processes: int = 2, in_flight: int = 2, together: int = 64) -> dict[str, float]:
    """Ask for `together` objects in each request, through the proxy."""
    names = [entry.name for entry in bucket(place).list_all_objects()]
    url = f"{place.endpoint}/v1/ml/moss/{place.bucket}?provider=ais"
    requests = [_batch(url, place.bucket, names[at : at + together]) for at in range(0, len(names), together)]
    return _measure(requests, objects=len(names), processes=processes, in_flight=in_flight)


def _get(url: str) -> Prepare:
    import pycurl

    return lambda handle: handle.setopt(pycurl.URL, url)


def _batch(url: str, bucket_name: str, names: Sequence[str]) -> Prepare:
    import pycurl

    entries = [{"objname": name, "bucket": bucket_name, "provider": "ais"} for name in names]
    body = json.dumps({"in": entries, "mime": ".tar", "coer": True, "onob": False, "strm": True})

    def prepare(handle: Any) -> None:
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.FOLLOWLOCATION, 1)
        handle.setopt(pycurl.POSTFIELDS, body)
        handle.setopt(pycurl.CUSTOMREQUEST, "GET")
        handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json"])

    return prepare


def _measure(requests: list[Prepare], *, objects: int, processes: int, in_flight: int) -> dict[str, float]:
    cpu, began = cpu_s(), time.perf_counter()
    children = [
        _FORK.Process(target=_fetch, args=(iter(requests[part::processes]), in_flight)) for part in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    took_s, used_s = time.perf_counter() - began, cpu_s() - cpu
    return {"samples/s": objects / took_s, "CPU ms/sample": 1e3 * used_s / objects}


def _fetch(pending: Iterator[Prepare], in_flight: int) -> None:
    import pycurl

    multi, running = pycurl.CurlMulti(), 0
    handles: list[Any] = [pycurl.Curl() for _ in range(in_flight)]
    for handle in handles:
        handle.setopt(pycurl.WRITEFUNCTION, lambda data: None)
    idle = list(handles)
    while True:
        while idle and (prepare := next(pending, None)) is not None:
            prepare(idle[-1])
            multi.add_handle(idle.pop())
            running += 1
        if not running:
            return
        multi.perform()
        _, done, failed = multi.info_read()
        assert not failed, failed
        for handle in done:
            assert handle.getinfo(pycurl.RESPONSE_CODE) == 200
            multi.remove_handle(handle)
            idle.append(handle)
            running -= 1
        if not done:
            multi.select(1.0)
