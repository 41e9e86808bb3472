"""Objects that are archives: their members, single reads (`archpath`) and reads of all matches (`archregx`).

Recorded: 085-093. Formats go by the name's ending: .tar, .tgz, .tar.gz, .zip.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from typing import IO, TYPE_CHECKING

from aiscache.devserver.bodies import FileBody
from aiscache.devserver.errors import AisError, no_object
from aiscache.devserver.messages import Response
from aiscache.devserver.tarstream import END, entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiscache.devserver.buckets import Bucket, Record
    from aiscache.devserver.messages import Request

_ENDINGS = (".tar", ".tgz", ".tar.gz", ".zip")


def is_archive(name: str) -> bool:
    """Whether an object is an archive, by its name."""
    return name.endswith(_ENDINGS)


def members(record: Record) -> dict[str, tuple[int, int]]:
    """The archive's members by name, in its order: size, and offset in the archive (-1 where it is compressed).

    Empty for what is no (readable) archive. Costs a pass over the archive the first time, then nothing.
    """
    if record.members is None:
        record.members = _scan(record) if is_archive(record.name) else {}
    return record.members


def read(record: Record, member: str) -> bytes:
    """The bytes of one member.

    Raises:
        KeyError: no such member.
        AisError: 400 where the object is no archive (recorded: 093).
    """
    if not is_archive(record.name):
        raise AisError(400, f'unrecognized or unsupported file format: "{record.name}"')
    size, offset = members(record)[member]
    if offset >= 0:
        return record.body.read(offset, offset + size)
    with _open(record) as file:
        if record.name.endswith(".zip"):
            return zipfile.ZipFile(file).read(member)
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            extracted = tar.extractfile(member)
            return extracted.read() if extracted else b""


def answer(label: str, bucket: Bucket, record: Record, request: Request) -> Response:
    """The answer to a GET with `archpath` or `archregx`: no checksum, no version (recorded: 085)."""
    query = request.query
    if b"range" in request.headers:  # recorded: 089
        asked = f"content range: {request.header(b'range')}, arch query: (archpath={query.get('archpath', '')})"
        raise AisError(400, f"cannot range-read archived {asked} - operation not supported", tcode="ErrUnsupp")
    path = query.get("archpath", "")
    if not path:
        return _all_matches(record, query.get("archregx", ""), query.get("archmode", "regexp"))
    try:
        body = read(record, path)
    except KeyError:
        raise no_object(label, f"{path} in {bucket.display}/{record.name}") from None
    return Response(200, [("Content-Type", "application/octet-stream")], body)


def _all_matches(record: Record, pattern: str, mode: str) -> Response:
    """A TAR of all members that match (recorded: 091, 092)."""
    if not is_archive(record.name):
        raise AisError(400, f'unrecognized or unsupported file format: "{record.name}"')
    matches = _matcher(pattern, mode)
    names = [name for name in members(record) if matches(name)]

    async def stream() -> AsyncIterator[bytes]:
        for name in names:
            yield entry(name, read(record, name))
        yield END

    return Response(200, [("Content-Type", "application/x-tar")], stream())


def _matcher(pattern: str, mode: str) -> Callable[[str], bool]:
    match mode:
        case "prefix":
            return lambda name: name.startswith(pattern)
        case "suffix":
            return lambda name: name.endswith(pattern)
        case "substr":
            return lambda name: pattern in name
        case "wdskey":  # a WebDataset sample: the name up to its first dot
            return lambda name: name[: _dot(name)] == pattern
        case _:
            compiled = re.compile(pattern)
            return lambda name: compiled.search(name) is not None


def _dot(name: str) -> int:
    at = name.find(".", name.rfind("/") + 1)
    return at if at >= 0 else len(name)


def _scan(record: Record) -> dict[str, tuple[int, int]]:
    plain = record.name.endswith(".tar")
    try:
        with _open(record) as file:
            if record.name.endswith(".zip"):
                infos = zipfile.ZipFile(file).infolist()
                return {info.filename: (info.file_size, -1) for info in infos if not info.is_dir()}
            with tarfile.open(fileobj=file, mode="r:*") as tar:
                return {info.name: (info.size, info.offset_data if plain else -1) for info in tar if info.isfile()}
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError):
        return {}


def _open(record: Record) -> IO[bytes]:
    if isinstance(record.body, FileBody):
        return open(record.body.path, "rb")
    return io.BytesIO(record.body.read(0, record.body.size))
