"""Shards as samples: `Shards` opens the shards of a listing and slices their members, without copying a shard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from torch.utils.data import get_worker_info

from aiscache.counting import counting
from aiscache.datasets.decompress import uncompressed
from aiscache.datasets.members import Members
from aiscache.datasets.readahead import read_windows
from aiscache.datasets.reader import Reader
from aiscache.datasets.shard_index import ShardIndex
from aiscache.datasets.tar_members import Member, tar_members
from aiscache.view import View, own_view

_WINDOW_BYTES = 64_000_000  # of shards read ahead together; one shard, if that is larger
_LONGEST_WINDOW = 16
_DECOMPRESSED = 2  # shards kept in this process, as decompressing one for each of its samples would take too long
_BUILD_WAIT_S = 600.0


class ShardBytes(NamedTuple):
    """A shard's uncompressed bytes; `in_place` if they are where the cache has them."""

    row: int
    data: View
    in_place: bool


class OpenShard(NamedTuple):
    """A shard's bytes, and the samples in them."""

    whole: ShardBytes
    samples: ShardIndex


def part_of(view: View, offset: int, size: int) -> View:
    """Return a range of a view as a view of the same memory."""
    part: Any = view[offset : offset + size]
    return cast(View, part)


class MemberReader:
    """Reads members again by (row, offset, size), for a trainer whose worker's reference leads nowhere any more."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, place: tuple[int, int, int]) -> View:
        """Return the bytes of a member of a plain archive."""
        row, offset, size = place
        return part_of(self._reader.read(row), offset, size)


class Shards:
    """The shards of a reader's listing. `convert` makes of a view what a sample holds."""

    def __init__(self, reader: Reader, convert: Callable[[View], Any]) -> None:
        self.members = Members(reader.manifest)
        self._reader = reader
        self._again = MemberReader(reader)
        self._convert = convert
        self._decompressed: OrderedDict[int, View] = OrderedDict()

    def open(self, row: int) -> OpenShard:
        """Return a shard, read through the cache; ShardError if it is no whole archive."""
        return self._open(row, self._reader.read(row))

    def open_many(self, rows: Sequence[int]) -> list[OpenShard]:
        """Return several shards; what is missing in the cache is fetched together."""
        return [self._open(row, view) for row, view in zip(rows, self._reader.read_many(rows), strict=True)]

    def stream(self, rows: Iterator[int]) -> Iterator[OpenShard]:
        """Yield shards in this order; while some are consumed, the next are fetched."""
        for row, view in self._read_ahead(rows):
            yield self._open(row, view)

    def files(self, rows: Iterator[int]) -> Iterator[tuple[ShardBytes, Member]]:
        """Yield all files of these shards, each shard's in the order of their names; nothing of it is kept."""
        for row, view in self._read_ahead(rows):
            whole = self._uncompressed(row, view)
            for member in sorted(tar_members(whole.data, shard=self._url(row))):
                yield whole, member

    def content(self, shard: ShardBytes, *, offset: int, size: int) -> Any:
        """Return a member as the samples hold it."""
        view = part_of(shard.data, offset, size)
        if shard.in_place and get_worker_info() is not None:
            view.sample = (self._again, (shard.row, offset, size))
        return self._convert(view)

    def sample(self, shard: OpenShard, number: int) -> tuple[str, dict[str, Any]]:
        """Return a sample's basename, and its contents by extension."""
        members = shard.samples.members(number)
        return shard.samples.key(number), {
            extension: self.content(shard.whole, offset=offset, size=size) for extension, offset, size in members
        }

    def copied_sample(self, shard: OpenShard, number: int) -> tuple[str, dict[str, Any]]:
        """Return a sample whose contents keep nothing of the shard alive."""
        key, contents = self.sample(shard, number)
        return key, {
            extension: own_view(content.tobytes()) if isinstance(content, View) else content
            for extension, content in contents.items()
        }

    def complete(self, *, show_progress: bool = False) -> None:
        """Look into all shards that nobody on this machine has looked into yet, and keep what was found.

        One process does it while the others wait, at most 10 minutes: all shards are read once, through the cache.
        """
        if not self.members.missing():
            return
        with self.members.turn(wait_s=_BUILD_WAIT_S, building=True):
            missing = self.members.missing()
            with counting("reading shards", "shards", total=len(missing), show=show_progress) as progress:
                for _ in self.stream(iter(missing)):
                    progress(1)
            self.save()

    def save(self) -> None:
        """Let other processes know what was found in the shards."""
        self.members.save(room=self._reader.room_for)

    def _read_ahead(self, rows: Iterator[int]) -> Iterator[tuple[int, View]]:
        read = self._reader.read_many
        return read_windows(self._windows(rows), lambda window: list(zip(window, read(window), strict=True)))

    def _open(self, row: int, view: View) -> OpenShard:
        whole = self._uncompressed(row, view)
        samples = self.members.get(row)
        if samples is None or samples.end > len(whole.data):
            samples = ShardIndex.of(tar_members(whole.data, shard=self._url(row)))
            self.members.add(row, samples)
        return OpenShard(whole, samples)

    def _uncompressed(self, row: int, view: View) -> ShardBytes:
        data = self._decompressed.get(row)
        if data is None:
            data = uncompressed(view, shard=self._url(row))
            if data is not view:
                self._decompressed[row] = data
                if len(self._decompressed) > _DECOMPRESSED:
                    self._decompressed.popitem(last=False)
        return ShardBytes(row, data, in_place=data is view and hasattr(view.base, "segment"))

    def _url(self, row: int) -> str:
        return self._reader.manifest.ref(row).url

    def _windows(self, rows: Iterator[int]) -> Iterator[list[int]]:
        """Divide rows into windows of limited bytes, the first of one shard: its samples are there soon."""
        size_of = self._reader.manifest.size
        window: list[int] = []
        total, most = 0, 1
        for row in rows:
            size = max(size_of(row), 0)
            if window and (len(window) >= most or total + size > _WINDOW_BYTES):
                yield window
                window, total, most = [], 0, min(2 * most, _LONGEST_WINDOW)
            window.append(row)
            total += size
        if window:
            yield window

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decompressed": OrderedDict()}
