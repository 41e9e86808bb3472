"""Get-Batch: many objects in one answer, by the target that the proxy has chosen.

Recorded: 094-118, 201, 213-215. Entries come in the order asked for. What is missing comes as an empty `__404__/...`,
with two exceptions, in which a stream ends early, well-formed and with status 200: a range beyond the end (106, 213),
and, unless the request continues on errors, an object that is missing on the answering target itself (201; one
missing on another target does not end it, 098). Answers that are not streamed refuse instead (214).
"""

from __future__ import annotations

import asyncio
import gzip
import io
import secrets
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from aiscache.devserver import archive
from aiscache.devserver.buckets import existing, uname
from aiscache.devserver.errors import AisError
from aiscache.devserver.messages import Response
from aiscache.devserver.tarstream import END, entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from aiscache.devserver.faults import Fault
    from aiscache.devserver.messages import Request
    from aiscache.devserver.target import TargetApplication

_AHEAD = 32  # entries fetched from other targets while the first of them is awaited
_TYPES = {
    ".tar": "application/x-tar",
    ".tgz": "application/gzip",
    ".tar.gz": "application/gzip",
    ".zip": "application/zip",
}


class Item(msgspec.Struct):
    """One entry of a batch, as the request tells it."""

    objname: str
    bucket: str = ""
    provider: str = "ais"
    archpath: str = ""
    start: int = 0
    length: int = 0
    opaque: str = ""

    @property
    def path(self) -> str:
        """The entry's name in the answer, without its bucket."""
        return f"{self.objname}/{self.archpath}" if self.archpath else self.objname


class _Body(msgspec.Struct):
    items: list[Item] = msgspec.field(name="in", default_factory=list)
    mime: str = ".tar"
    coer: bool = False
    onob: bool = False
    strm: bool = False


class _MissingError(Exception):
    """An entry that can't be had; `local` where this target owns it."""

    def __init__(self, message: str, *, local: bool) -> None:
        super().__init__(message)
        self.local = local


class _BatchEndError(Exception):
    """The stream ends before this entry."""

    def __init__(self, error: AisError) -> None:
        super().__init__(error.message)
        self.error = error


class Batch:
    """One Get-Batch request at the target that answers it."""

    def __init__(self, app: TargetApplication, body: _Body, *, bucket: str, uuid: str) -> None:
        self._app = app
        self._body = body
        self._uuid = uuid
        self._fault: Fault | None = None
        self.bucket = bucket
        self.names = tuple(item.objname for item in body.items)
        for item in body.items:
            item.bucket = item.bucket or bucket

    @classmethod
    def parse(cls, app: TargetApplication, request: Request) -> Batch:
        """Read `/v1/ml/moss[/BUCKET]/UUID/...` and the JSON body."""
        parts = request.path.split("/")[4:]
        bucket = "" if not parts or parts[0].startswith("gbt-") else parts[0]
        uuid = next((part for part in parts if part.startswith("gbt-")), "gbt-" + secrets.token_urlsafe(6))
        try:
            body = msgspec.json.decode(request.body, type=_Body)
        except msgspec.DecodeError as bad:
            told = f"{app.me.label}: failed to unmarshal [*apc.MossReq] ({request.method}), err: {bad}"
            raise AisError(400, told) from None
        return cls(app, body, bucket=bucket or (body.items[0].bucket if body.items else ""), uuid=uuid)

    def obey(self, fault: Fault) -> None:
        """Let the fault decide what becomes of the entries that it names."""
        self._fault = fault

    def answer(self) -> Response | Awaitable[Response]:
        """The streamed archive, or the parts of a multipart answer."""
        for bucket in {item.bucket for item in self._body.items}:
            existing(self._app.buckets, uname(bucket))
        if self._body.mime not in _TYPES:
            raise AisError(400, f'unrecognized or unsupported file format: "{self._body.mime}"')
        if self._body.strm:
            return Response(200, [("Content-Type", _TYPES[self._body.mime])], self._stream())
        return self._multipart()

    # Entries

    async def _entries(self) -> AsyncIterator[tuple[Item, bytes | _MissingError]]:
        """Each entry's bytes, or why it is missing, in order; raises _BatchEndError where the stream ends early."""
        items = self._body.items
        for start in range(0, len(items), _AHEAD):
            window = items[start : start + _AHEAD]
            fetched = await asyncio.gather(*map(self._fetch, window), return_exceptions=True)
            for item, data in zip(window, fetched, strict=True):
                if isinstance(data, _MissingError):
                    if data.local and not self._body.coer:
                        raise _BatchEndError(AisError(404, str(data), tcode="ErrNotFound"))
                elif isinstance(data, BaseException):
                    raise data
                yield item, data

    async def _fetch(self, item: Item) -> bytes:
        if self._fault is not None and self._fault.names(item.objname):
            if self._fault.batch_entry == "missing":
                raise _MissingError(f"{self._app.me.label}: {_told(item)} does not exist", local=False)
            raise _BatchEndError(AisError(500, "fault: the batch ends here"))
        data = await self._read(item)
        if not item.start and not item.length:
            return data
        if item.start >= len(data):
            told = f"size={len(data)}: not satisfiable range [start={item.start},length={item.length}]"
            raise _BatchEndError(AisError(400, told, tcode="ErrRangeNotSatisfiable"))
        return data[item.start : None if item.length < 0 else item.start + item.length]

    async def _read(self, item: Item) -> bytes:
        path = uname(item.bucket)
        record = self._app.buckets[path].find(item.objname)
        if record is None:
            return await self._read_elsewhere(item, path)
        try:
            return archive.read(record, item.archpath) if item.archpath else record.body.read(0, record.body.size)
        except (KeyError, AisError):
            raise _MissingError(f"{item.archpath} in {_told(item)} does not exist", local=not self._body.coer) from None

    async def _read_elsewhere(self, item: Item, path: str) -> bytes:
        owner = self._app.placement.owner(path + item.objname)
        gone = f"{owner.label if owner else ''}: {_told(item)} does not exist"
        if owner is None or owner.id == self._app.me.id:
            raise _MissingError(gone, local=True)
        query = urlencode({"archpath": item.archpath}) if item.archpath else ""
        target = f"/v1/objects/{quote(item.bucket)}/{quote(item.objname, safe='/')}?{query}"
        try:
            status, data = await self._app.peers.request(owner, "GET", target)
        except OSError:
            status = 404
        if status != 200:
            raise _MissingError(gone, local=False)
        return data

    def _name(self, item: Item, data: bytes | _MissingError) -> str:
        name = item.path if self._body.onob else f"{item.bucket}/{item.path}"
        return f"__404__/{item.bucket}/{item.path}" if isinstance(data, _MissingError) else name

    # Answers

    async def _stream(self) -> AsyncIterator[bytes]:
        packer = _ZipPacker() if self._body.mime == ".zip" else _TarPacker(compress=self._body.mime != ".tar")
        try:
            async for item, data in self._entries():
                yield packer.add(self._name(item, data), b"" if isinstance(data, _MissingError) else data)
        except _BatchEndError:
            pass
        yield packer.end()

    async def _multipart(self) -> Response:
        """JSON that describes the entries, then the archive (recorded: 095)."""
        packer = _ZipPacker() if self._body.mime == ".zip" else _TarPacker(compress=self._body.mime != ".tar")
        packed, out = [], []
        try:
            async for item, data in self._entries():
                packed.append(packer.add(self._name(item, data), b"" if isinstance(data, _MissingError) else data))
                out.append(_result(item, data))
        except _BatchEndError as end:
            raise end.error from None
        boundary = secrets.token_hex(30)
        told = msgspec.json.encode({"uuid": self._uuid, "out": out})
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode() + told + b"\n"
        middle = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="archive"; '
            f'filename="get-batch[{self._uuid}]"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        chunks = [head, middle, *packed, packer.end(), f"\r\n--{boundary}--\r\n".encode()]
        return Response(200, [("Content-Type", f"multipart/mixed; boundary={boundary}")], _each(chunks))


async def _each(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _told(item: Item) -> str:
    return f"{item.provider}://{item.bucket}/{item.objname}"


def _result(item: Item, data: bytes | _MissingError) -> dict[str, Any]:
    told: dict[str, Any] = {"objname": item.path, "bucket": item.bucket, "provider": item.provider}
    if item.opaque:
        told["opaque"] = item.opaque
    if isinstance(data, _MissingError):
        return told | {"err_msg": str(data), "size": 0}
    return told | {"size": len(data)}


class _TarPacker:
    """A TAR, entry by entry; compressed where asked."""

    def __init__(self, *, compress: bool) -> None:
        self._sink = io.BytesIO()
        self._gzip = gzip.GzipFile(fileobj=self._sink, mode="wb", compresslevel=1) if compress else None

    def add(self, name: str, data: bytes) -> bytes:
        """The bytes to send for one more entry; may be none yet."""
        return self._squeezed(entry(name, data))

    def end(self) -> bytes:
        """The bytes that end the archive."""
        last = self._squeezed(END)
        if self._gzip is None:
            return last
        self._gzip.close()
        return last + self._sink.getvalue()

    def _squeezed(self, data: bytes) -> bytes:
        if self._gzip is None:
            return data
        self._gzip.write(data)
        squeezed = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return squeezed


class _ZipPacker:
    """A ZIP, sent when it is complete."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._zip = zipfile.ZipFile(self._sink, "w")

    def add(self, name: str, data: bytes) -> bytes:
        """Take one more entry; nothing to send yet."""
        info = zipfile.ZipInfo(name)
        with self._zip.open(info, "w") as member:
            member.write(data)
        return b""

    def end(self) -> bytes:
        """The whole archive."""
        self._zip.close()
        return self._sink.getvalue()
