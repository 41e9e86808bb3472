"""What a real cluster was asked is asked again; the dev server must answer the same, but for times, ports and ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import captures
import pytest
from wire import Answer, ask

from aiscache.devserver import DevCluster

# Values that differ from run to run; that the header is there is compared all the same.
UNSTEADY = {"Date", "Ais-Atime", "Location", "Etag", "Last-Modified", "Ais-Bucket-Props", "Hdr-Error"}
UNSTEADY |= {"Ais-Location", "Ais-Mirror-Paths"}  # mount paths, of which the dev server knows one
# The parser's own words end these messages.
PARSER_WORDS = {"129-405-method"}


# What the bucket held before a capture, by its number; each step is one PUT.
BEFORE = {"010": [], "011": [], "156": ["small.txt", "small.txt"]}
# Traces of earlier requests, which set a property of the object.
HISTORY = {"193": {"Ais-Custom-Md", "Ais-Version", "Etag"}}


@pytest.fixture
def t1(dev_cluster: DevCluster) -> Iterator[DevCluster]:
    """No buckets that the captures make, and `t1` empty."""
    client = dev_cluster.client()
    mine = [info.name for info in client.cluster().list_buckets() if re.fullmatch(r"t1|ck-.*|nover", info.name)]
    for bucket in mine:
        client.bucket(bucket).delete()
    yield dev_cluster
    client.bucket("t1").delete()


@pytest.mark.parametrize("name", captures.names())
def test_answers_like_the_real_cluster(t1: DevCluster, name: str) -> None:
    for before in BEFORE.get(name[:3], ["small.txt", "empty"]):
        t1.put_many("t1", {before: b"hello world" if before == "small.txt" else b""})
    t1.create_bucket("t1")
    nodes = [t1.endpoint, *t1.targets]
    for exchange in captures.read(name):
        request = exchange.request
        skip = ("host", "content-length", "accept-encoding", "connection")
        headers = {key.replace("-", "_"): value for key, value in request.headers if key.lower() not in skip}
        url = nodes[request.port - 51080]
        answer = ask(url, exchange.method, exchange.target, request.body, **headers)
        recorded = exchange.response
        wanted = Answer(exchange.status, {key.title(): value for key, value in recorded.headers}, recorded.body)
        assert told(answer, name) == told(wanted, name), exchange.request.first


def told(answer: Answer, name: str) -> dict[str, Any]:
    headers = {key: "" if key in UNSTEADY else value for key, value in answer.headers.items()}
    for header in {"Connection", *HISTORY.get(name[:3], ())}:
        headers.pop(header, None)
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        headers.pop("Content-Length", None)
    if re.match("00[67]", name):
        return {"status": answer.status, "headers": sorted(headers)}
    if "Location" in answer.headers:
        headers["Location"] = steady(answer.headers["Location"])
        headers.pop("Content-Length", None)  # ports have four or five digits
    return {"status": answer.status, "headers": headers, "body": steady_body(answer, name)}


def steady_body(answer: Answer, name: str) -> Any:
    text = answer.headers.get("Hdr-Error", "") or answer.body.decode()
    if not text.startswith(("{", "[")):
        return steady(text)
    body = json.loads(text)
    for field in ("remote_addr", "uuid"):
        if field in body:
            body[field] = ""
    for entry in body.get("entries", ()):
        entry.pop("atime", None)
    if "message" in body:
        body["message"] = steady(body["message"])
        if name in PARSER_WORDS:
            body["message"] = body["message"].partition(" (htrun.go")[0]
    return body


def steady(text: str) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "NODE", re.sub(r"utm=\w+", "utm=", text))
