"""`AISMultiShardStream`: several streams of shards side by side."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset

from aiscache.cache import Cache, resolve_cache
from aiscache.datasets.listed import Listed
from aiscache.datasets.position import Position
from aiscache.datasets.shards import ShardBytes, Shards, part_of
from aiscache.datasets.shuffle_buffer import SHUFFLE_BUFFER, chance_of, mixed
from aiscache.datasets.split import EQUALIZE, Share, our_share
from aiscache.datasets.tar_members import Member
from aiscache.errors import ConfigError
from aiscache.view import own_view

Files = list[tuple[ShardBytes, Member]]
"""A sample: of each stream a shard, and where in it a file is."""


class _Stream(Listed):
    """The files of the shards of one source."""

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source.bucket, {source.bucket: source.prefix or ""}, etl_name=source.etl_name, **options)
        self.name = f"{source.bucket.provider.value}://{source.bucket_name}/{source.prefix}*"
        self.shards = Shards(self._reader, self._convert)

    def files(self) -> Iterator[tuple[ShardBytes, Member]]:
        return self.shards.files(iter(range(len(self.manifest))))


class AISMultiShardStream(IterableDataset):  # type: ignore[misc]
    """An iterable dataset of files from several streams of shards: yields tuples with one content per stream.

    A stream has the files of all shards of a `DataShard` (of `aistore.sdk`): shards in the order of the listing, files
    in the order of their names, as in `aistore.pytorch`. The n-th files of all streams are the n-th sample. It ends
    with the shortest stream, with a warning if others have more. Each sample is yielded by one worker of one rank; all
    of them go through all shards, each of which is fetched once per machine, whole.

    Arguments:
        data_sources: a list of DataShard. Each has its own `etl_name`.
        cache, content, max_listing_age_s, on_shrink: as in `AISBaseMapDataset`.
        rank, world_size, equalize: as in `AISBaseIterDataset`.
        shuffle, seed, shuffle_buffer: yield samples at random from a buffer of so many; another order in each epoch.
            Streams stay side by side, so the shards come in the order of their names all the same.

    Raises ShardError for an object that is no whole archive.
    """

    def __init__(
        self,
        data_sources: Sequence[Any],
        *,
        cache: Cache | str | os.PathLike[str] | bool | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        equalize: str | None = None,
        shuffle: bool = False,
        seed: int = 0,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        **options: Any,
    ) -> None:
        our_share(rank=rank, world_size=world_size)  # a bad pair is told here, not in a worker
        if equalize not in EQUALIZE:
            raise ConfigError(f"equalize={equalize!r} must be one of {', '.join(map(repr, EQUALIZE))}")
        self.cache = resolve_cache(cache)
        shared = False if self.cache is None else self.cache
        self._streams = [_Stream(source, cache=shared, **options) for source in data_sources]
        self._rank = rank
        self._world_size = world_size
        self._equalize = equalize
        self._shuffle = shuffle and shuffle_buffer > 1
        self._seed = seed
        self._shuffle_buffer = shuffle_buffer
        self._position = Position()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        share, passed = self._position.begin(self._share())
        ours = self._of_rank(share.rank, share.world_size, tell=share.worker == 0)
        if not self._shuffle:
            return self._contents(islice(ours, share.worker + passed * share.workers, None, share.workers))
        mine = map(_kept, islice(ours, share.worker, None, share.workers))
        chance = chance_of(share, seed=self._seed, epoch=self._position.epoch)
        return self._contents(islice(mixed(mine, size=self._shuffle_buffer, chance=chance), passed, None))

    def _contents(self, samples: Iterator[Files]) -> Iterator[tuple[Any, ...]]:
        for files in samples:
            self._position.yielded += 1
            yield tuple(
                stream.shards.content(whole, offset=member.offset, size=member.size)
                for stream, (whole, member) in zip(self._streams, files, strict=True)
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; as that of `AISBaseIterDataset`."""
        self._position.set_epoch(epoch)

    def state_dict(self, loader: Any = None, *, batches: int | None = None) -> dict[str, Any]:
        """Return where the epoch is, for `load_state_dict`; as that of `AISBaseIterDataset`."""
        return self._position.state(loader, batches, of=self._identity())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next iteration go on where `state_dict` was taken; as that of `AISBaseIterDataset`."""
        self._position.load(state, of=self._identity())

    def _identity(self) -> dict[str, Any]:
        return {"seed": self._seed, "streams": len(self._streams), "ranks": self._share().world_size}

    def _share(self) -> Share:
        return our_share(rank=self._rank, world_size=self._world_size)

    def _of_rank(self, rank: int, ranks: int, *, tell: bool) -> Iterator[Files]:
        """Yield what a rank's workers share: of each round of samples, one per rank, its own."""
        samples = self._side_by_side(tell)
        first: list[Any] = []
        while turn := list(islice(samples, ranks)):
            first = first or turn
            if len(turn) < ranks and self._equalize == "drop":
                return
            if rank < len(turn):
                yield turn[rank]
            elif self._equalize == "pad":
                yield first[(rank - len(turn)) % len(first)]

    def _side_by_side(self, tell: bool) -> Iterator[Files]:
        streams = [stream.files() for stream in self._streams]
        count = 0
        while streams:
            found = [next(stream, None) for stream in streams]
            files = [one for one in found if one is not None]
            if len(files) < len(streams):
                if files and tell:
                    ended = ", ".join(s.name for s, one in zip(self._streams, found, strict=True) if one is None)
                    warnings.warn(
                        f"streams of shards differ in length: {ended} ended after {count:,} files, others did not",
                        UserWarning,
                        stacklevel=2,
                    )
                return
            yield files
            count += 1


def _kept(files: Files) -> Files:
    """Return what a buffer holds of a sample: where its files are, or a copy of those that are not in the cache."""
    return [
        (whole, member)
        if whole.in_place
        else (
            ShardBytes(whole.row, own_view(part_of(whole.data, member.offset, member.size).tobytes()), in_place=False),
            member._replace(offset=0),
        )
        for whole, member in files
    ]
