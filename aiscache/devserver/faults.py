"""Faults as data: what goes wrong, for which requests, how often.

A fault is plain data that the test process sends to every node; the node that answers a matching request obeys it. A
fault with a `count` carries a semaphore that all nodes share: it strikes exactly that often in the whole cluster.
"""

from __future__ import annotations

import os
import re
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

OBJECT_METHODS = ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH")
METHODS = (*OBJECT_METHODS, "BATCH", "LIST", "BUCKET", "SMAP", "OTHER")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. Sizes are in bytes of the body, times in seconds.

    Attributes:
        bucket: shell pattern of the bucket's name.
        name: shell pattern of the object's name; for a BATCH, of any of its entries' names.
        method: the kind of request to strike (`METHODS`); without it, every request for one object, or
            LIST where a listing is to come short.
        target: the node to strike: a target's number, or -1 for the proxy (which then fails instead of redirecting);
            without it, whichever node answers.
        count: how often to strike before the fault is spent; without it, for ever.
        status: answer this HTTP status with AIStore's error body; 404 for an object says that it is missing.
        redirect_to: redirect to the same path under this URL, as in `http://127.0.0.1:9`.
        delay_s: wait before the answer.
        truncate_at: send this much of the body, then close the connection in good order.
        reset_at: send this much of the body, then reset the connection.
        stall_at: send this much of the body, then nothing more; the connection stays open.
        flip_byte_at: invert the byte at this offset of the body (a negative offset counts from its end).
        wrong_length: announce this `Content-Length`, send the whole body, then close.
        bytes_per_s: send the body this slowly.
        batch_entry: what becomes of the named entries of a Get-Batch: "missing" (they come under `__404__/`) or "end"
            (a streamed answer ends before the first of them, well-formed and with status 200).
        list_drop: leave names out of a listing: a number of them of each page, or below 1 a fraction of all names.
    """

    bucket: str = "*"
    name: str = "*"
    method: str | None = None
    target: int | None = None
    count: int | None = None
    status: int | None = None
    redirect_to: str | None = None
    delay_s: float = 0.0
    truncate_at: int | None = None
    reset_at: int | None = None
    stall_at: int | None = None
    flip_byte_at: int | None = None
    wrong_length: int | None = None
    bytes_per_s: int | None = None
    batch_entry: Literal["missing", "end"] | None = None
    list_drop: float = 0

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: must be one of {', '.join(METHODS)}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count}: must be at least 1")
        if self.status is not None and not 100 <= self.status <= 599:
            raise ValueError(f"status={self.status}: must be an HTTP status")
        for field in ("delay_s", "truncate_at", "reset_at", "stall_at", "wrong_length", "list_drop"):
            if (getattr(self, field) or 0) < 0:
                raise ValueError(f"{field}={getattr(self, field)}: must not be negative")
        if self.bytes_per_s is not None and self.bytes_per_s < 1:
            raise ValueError(f"bytes_per_s={self.bytes_per_s}: must be at least 1")

    def strikes(self, kind: str, bucket: str, names: Iterable[str]) -> bool:
        """Whether the fault is meant for a request of this kind."""
        if not self._means(kind) or not _pattern(self.bucket).match(bucket):
            return False
        if kind not in OBJECT_METHODS and kind != "BATCH":
            return True  # these have no object name; a listing's names are matched one by one
        return any(map(self.names, names))

    def _means(self, kind: str) -> bool:
        if self.method is not None:
            return kind == self.method
        if self.list_drop:
            return kind == "LIST"
        return kind == "BATCH" if self.batch_entry else kind in OBJECT_METHODS

    def names(self, name: str) -> bool:
        """Whether the fault's pattern matches an object's name."""
        return _pattern(self.name).match(name) is not None

    def alters_body(self) -> bool:
        """Whether the body, or the way it is sent, differs."""
        fields = (
            self.truncate_at, self.reset_at, self.stall_at, self.flip_byte_at, self.wrong_length, self.bytes_per_s
        )  # fmt: skip
        return any(field is not None for field in fields)

    def drop(self, names: list[str]) -> set[str]:
        """The names that a listing leaves out: those that match, spread evenly over a fraction, or the first few."""
        matching = [name for name in names if self.names(name)]
        if self.list_drop >= 1:
            return set(matching[: int(self.list_drop)])
        kept = 1 - self.list_drop
        return {name for i, name in enumerate(matching) if int((i + 1) * kept) == int(i * kept)}


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


class FaultTable:
    """The faults that one node obeys."""

    def __init__(self, node: int) -> None:
        self._node = node
        self._faults: list[tuple[Fault, int | None]] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, fault: Fault, tokens: int | None) -> None:
        """Obey `fault` from now on. `tokens` is the semaphore that holds one token for each strike left."""
        self._faults.append((fault, tokens))

    def clear(self) -> None:
        """Obey nothing any more."""
        for _, tokens in self._faults:
            if tokens is not None:
                os.close(tokens)
        self._faults = []

    def strike(self, kind: str, bucket: str, names: Iterable[str]) -> Fault | None:
        """The fault that this request meets, if any: the first that matches and isn't spent."""
        at_proxy = self._node < 0 and (kind in OBJECT_METHODS or kind == "BATCH")
        for fault, tokens in self._faults:
            here = fault.target == self._node or (fault.target is None and not at_proxy)
            if here and fault.strikes(kind, bucket, names) and (tokens is None or _take(tokens)):
                return fault
        return None


def _take(tokens: int) -> bool:
    """Take one token, wherever in the cluster the others are taken."""
    try:
        os.eventfd_read(tokens)
    except BlockingIOError:
        return False
    return True


def parse_fault(text: str) -> Fault:
    """A fault from the command line: `bucket/name*,status=503,count=2`.

    The part before the first comma is the pattern of the bucket, a slash and the pattern of the name (`*` without it);
    the rest are fields of `Fault`.

    Raises:
        ValueError: says which part is wrong and what was expected.
    """
    where, *settings = text.split(",")
    bucket, _, name = where.partition("/")
    if not bucket:
        raise ValueError(
            f"fault {text!r}: must begin with BUCKET/NAME, patterns allowed, as in 'train/img-*,status=503'"
        )
    told: dict[str, Any] = {"bucket": bucket, "name": name or "*"}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in _FIELDS:
            raise ValueError(f"fault {text!r}: {setting!r} must be one of {', '.join(f + '=' for f in _FIELDS)}")
        try:
            told[field] = msgspec.convert(value, _FIELDS[field], strict=False)
        except msgspec.ValidationError as invalid:
            reason = str(invalid).replace(" | null", "").lower()
            raise ValueError(f"fault {text!r}: {setting!r}: {reason}") from None
    try:
        return Fault(**told)
    except ValueError as invalid:
        raise ValueError(f"fault {text!r}: {invalid}") from None


_FIELDS = {field: kind for field, kind in get_type_hints(Fault).items() if field not in ("bucket", "name")}
