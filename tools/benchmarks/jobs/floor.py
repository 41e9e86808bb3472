"""What libcurl alone reaches: objects straight from their targets, and every byte thrown away."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from benchmarks.contenders import Place, bucket
from benchmarks.usage import cpu_s


def curl(place: Place, *, processes: int = 2, in_flight: int = 16) -> dict[str, float]:
    """Fetch all objects with `processes` times `in_flight` requests at a time."""
    urls = _urls(place)
    cpu, began = cpu_s(), time.perf_counter()
    children = [
        multiprocessing.get_context("fork").Process(target=_fetch, args=(urls[part::processes], in_flight))
        for part in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    took_s, used_s = time.perf_counter() - began, cpu_s() - cpu
    return {"samples/s": len(urls) / took_s, "CPU ms/sample": 1e3 * used_s / len(urls)}


def _urls(place: Place) -> list[str]:
    source = bucket(place)
    smap = source.client.get_smap()
    urls = []
    for entry in source.list_all_objects():
        target = smap.get_target_for_object(f"{source.get_path()}{entry.name}")
        urls.append(f"{target.public_net.direct_url}/v1/objects/{place.bucket}/{entry.name}?provider=ais")
    return urls


def _fetch(urls: list[str], in_flight: int) -> None:
    import pycurl

    multi, pending, running = pycurl.CurlMulti(), iter(urls), 0
    handles: list[Any] = []
    for _ in range(in_flight):
        handle = pycurl.Curl()
        handle.setopt(pycurl.WRITEFUNCTION, lambda data: None)
        handles.append(handle)
    idle = list(handles)
    while True:
        while idle and (url := next(pending, None)) is not None:
            handle = idle.pop()
            handle.setopt(pycurl.URL, url)
            multi.add_handle(handle)
            running += 1
        if not running:
            return
        while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        _, done, failed = multi.info_read()
        assert not failed, failed
        for handle in done:
            assert handle.getinfo(pycurl.RESPONSE_CODE) == 200
            multi.remove_handle(handle)
            idle.append(handle)
            running -= 1
        if not done:
            multi.select(1.0)
