"""aiscache."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Contender, Kind, Place, bucket


def make(place: Place, *, kind: str = "AISMapDataset", capacity: int | str = "20GB", **options: Any) -> Any:
    import aiscache

    cache = aiscache.Cache(place.directory, capacity=capacity)
    return getattr(aiscache, kind)(bucket(place), cache=cache, **options)


def _contender(label: str, **options: Any) -> Contender:
    return Contender(label, make, options, kind=Kind.OURS)


CONTENDERS = {
    "bytes": _contender("aiscache, bytes"),
    "views": _contender("aiscache, views", content="view"),
    "shard-reader-bytes": _contender("aiscache AISShardReader, bytes", kind="AISShardReader"),
    "shard-reader-views": _contender("aiscache AISShardReader, views", kind="AISShardReader", content="view"),
    "shard-dataset-bytes": _contender("aiscache AISShardDataset, bytes", kind="AISShardDataset"),
    "shard-dataset-views": _contender("aiscache AISShardDataset, views", kind="AISShardDataset", content="view"),
}
