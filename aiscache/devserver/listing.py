"""Listings: what is asked for, one target's page, and the pages of all targets as one.

Recorded: 066-084. Entries are in the order of their names; a page that is full has a continuation token, the last name,
even when nothing follows (070). Names with `//` or a leading slash are never listed (033).
"""

from __future__ import annotations

import bisect
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from aiscache.devserver import archive
from aiscache.devserver.errors import AisError
from aiscache.devserver.headers import location

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiscache.devserver.buckets import Bucket, Record
    from aiscache.devserver.smap import Node

PAGE = 10_000  # entries in a page unless the request says otherwise

# Flags of a request (SDK: list_object_flag.py)
ARCH_DIR, NAME_ONLY, NAME_SIZE, NO_RECURSION, NO_DIRS = 1 << 3, 1 << 4, 1 << 5, 1 << 11, 1 << 13
# Flags of an entry (recorded: 066, 073, 083)
CACHED, MEMBER, DIRECTORY, ARCHIVE = 64, 128, 256, 512


class Entry(msgspec.Struct, omit_defaults=True):
    """An entry in msgpack: zero fields are left out (recorded: 067)."""

    n: str
    cs: str = ""
    a: str = ""
    v: str = ""
    t: str = ""
    s: int = 0
    c: int = 0
    f: int = 0


class _JsonEntry(msgspec.Struct, omit_defaults=True):
    name: str
    checksum: str = ""
    atime: str = ""
    version: str = ""
    location: str = ""
    size: str = ""  # a string: recorded in 076
    copies: int = 0
    flags: int = 0


class ListRequest(msgspec.Struct):
    """What a listing asks for: the `value` of its message."""

    uuid: str = ""
    props: str = ""
    prefix: str = ""
    continuation_token: str = ""
    start_after: str = ""
    time_format: str = ""
    flags: int | str = 0
    pagesize: int = 0

    @classmethod
    def parse(cls, body: bytes, label: str, method: str) -> ListRequest:
        """Read the request's body; raises the 400s recorded in 077 and 130."""
        if not body:
            return cls()
        try:
            message = msgspec.json.decode(body, type=_Message)
        except msgspec.DecodeError as bad:
            raise AisError(400, f"{label}: failed to unmarshal [*apc.ActMsg] ({method}), err: {bad}") from None
        try:
            return msgspec.convert(message.value or {}, cls)
        except msgspec.ValidationError as bad:
            kind = "map[string]interface {}"
            raise AisError(400, f"{label}: failed to unmarshal list ({kind}), err: apc.LsoMsg: {bad}") from None

    @property
    def size(self) -> int:
        """Entries wanted in a page."""
        return self.pagesize or PAGE

    @property
    def after(self) -> str:
        """Only names after this one."""
        return max(self.continuation_token, self.start_after)

    def has(self, flag: int) -> bool:
        """Whether one of the request's flags is set."""
        return bool(int(self.flags or 0) & flag)

    def fields(self) -> frozenset[str]:
        """The properties wanted; flags overrule the list."""
        if self.has(NAME_ONLY):
            return frozenset()
        if self.has(NAME_SIZE) or not self.props:
            return frozenset({"size"})
        return frozenset(prop.strip() for prop in self.props.split(","))


class _Message(msgspec.Struct):
    action: str = ""
    value: Any = None


_sorted_names: WeakKeyDictionary[Bucket, tuple[int, bool, list[str]]] = WeakKeyDictionary()


def page(bucket: Bucket, wanted: ListRequest, node: Node) -> list[Entry]:
    """One target's entries for one page: as many as the page can hold, since all might be this target's."""
    describe = _Describer(bucket, wanted, node)
    entries = []
    for name in _names(bucket, wanted):
        entries.append(describe(name))
        if len(entries) == wanted.size:
            break
    return entries


def _names(bucket: Bucket, wanted: ListRequest) -> Iterator[str]:
    names = _all_names(bucket, archives=wanted.has(ARCH_DIR))
    prefix, after = wanted.prefix, wanted.after
    start = max(bisect.bisect_left(names, prefix), bisect.bisect_right(names, after))
    if wanted.has(NO_RECURSION):
        yield from _one_level(names, start, wanted)
        return
    for index in range(start, len(names)):
        name = names[index]
        if not name.startswith(prefix):
            return
        yield name


def _one_level(names: list[str], start: int, wanted: ListRequest) -> Iterator[str]:
    """Names of one level; what is deeper appears once, as `dir/` (recorded: 073)."""
    index, depth = start, len(wanted.prefix)
    while index < len(names) and names[index].startswith(wanted.prefix):
        slash = names[index].find("/", depth)
        if slash < 0:
            yield names[index]
            index += 1
            continue
        directory = names[index][: slash + 1]
        if directory > wanted.after and not wanted.has(NO_DIRS):
            yield directory
        index = bisect.bisect_left(names, directory[:-1] + "0", lo=index)  # "0" follows "/"


def _all_names(bucket: Bucket, *, archives: bool) -> list[str]:
    """All names that can be listed, sorted; remembered until the bucket changes."""
    known = _sorted_names.get(bucket)
    if known is None or known[:2] != (bucket.changes, archives):
        owned = [name for name, record in bucket.records.items() if record.owned]
        names = [name for name in owned if "//" not in name and name[:1] != "/"]
        if archives:
            names += [f"{name}/{member}" for name in names for member in archive.members(bucket.records[name])]
        names.sort()
        known = _sorted_names[bucket] = (bucket.changes, archives, names)
    return known[2]


class _Describer:
    """Makes entries of names."""

    def __init__(self, bucket: Bucket, wanted: ListRequest, node: Node) -> None:
        self._records = bucket.records
        self._checksum_type = bucket.checksum_type
        self._time_format = wanted.time_format
        self._archives = wanted.has(ARCH_DIR)
        fields = wanted.fields()
        self._size = "size" in fields
        self._checksum = "checksum" in fields
        self._version = "version" in fields
        self._atime = "atime" in fields
        self._copies = int("copies" in fields)
        self._location = location(node) if "location" in fields else ""

    def __call__(self, name: str) -> Entry:
        record = self._records.get(name)
        if record is None:
            return Entry(name, f=DIRECTORY) if name.endswith("/") else self._member(name)
        return Entry(
            name,
            record.checksum(self._checksum_type) if self._checksum else "",
            _when(record.atime_ns, self._time_format) if self._atime else "",
            str(record.version) if self._version and record.version else "",
            self._location,
            record.body.size if self._size else 0,
            self._copies,
            CACHED | ARCHIVE if self._archives and archive.is_archive(name) else CACHED,
        )

    def _member(self, name: str) -> Entry:
        """An entry inside an archive (recorded: 083): name, size and flags only."""
        at = name.find("/")
        while (record := self._records.get(name[:at])) is None or name[at + 1 :] not in archive.members(record):
            at = name.find("/", at + 1)
        return Entry(name, s=archive.members(record)[name[at + 1 :]][0] if self._size else 0, f=CACHED | MEMBER)


def _when(time_ns: int, layout: str) -> str:
    """A time in the Go layout asked for: RFC 822 (the default), RFC 3339 with or without nanoseconds (078)."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, tz=timezone.utc)
    if layout.startswith("2006-01-02T15:04:05"):
        fraction = f".{time_ns % 1_000_000_000:09d}".rstrip("0").rstrip(".") if "." in layout else ""
        return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    return f"{moment:%d %b %y %H:%M} UTC"


def merge(pages: Iterable[list[Entry]], size: int) -> tuple[list[Entry], str]:
    """The targets' pages as one of at most `size` entries, and its continuation token."""
    entries = [entry for one in pages for entry in one]
    entries.sort(key=_name)
    if any(entry.f == DIRECTORY for entry in entries):  # several targets hold parts of one directory
        entries = list({entry.n: entry for entry in entries}.values())
    del entries[size:]
    return entries, entries[-1].n if len(entries) == size else ""


def _name(entry: Entry) -> str:
    return entry.n


def encode(entries: list[Entry], token: str, uuid: str, *, as_json: bool) -> bytes:
    """The body of a listing's answer."""
    if not as_json:
        told: dict[str, Any] = {"UUID": uuid, "ContinuationToken": token, "Entries": entries, "Flags": 0}
        return msgspec.msgpack.encode(told)
    rows = [_JsonEntry(e.n, e.cs, e.a, e.v, e.t, str(e.s) if e.s else "", e.c, e.f) for e in entries]
    return msgspec.json.encode({"uuid": uuid, "continuation_token": token, "entries": rows, "flags": 0}) + b"\n"


def summary(bucket: Bucket, prefix: str) -> dict[str, int]:
    """Count and sizes of the objects this target owns."""
    sizes = [record.body.size for record in _owned(bucket, prefix)]
    return {"count": len(sizes), "total": sum(sizes), "min": min(sizes, default=0), "max": max(sizes, default=0)}


def _owned(bucket: Bucket, prefix: str) -> Iterator[Record]:
    return (record for name, record in bucket.records.items() if record.owned and name.startswith(prefix))


def new_uuid() -> str:
    """An id for a listing, in AIStore's shape."""
    return f"l{time.time_ns() % 0xFFFFFFFF:08x}"
