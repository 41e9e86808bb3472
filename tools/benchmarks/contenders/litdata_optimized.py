"""litdata's own format: `optimize` packs the objects into chunks once, `StreamingDataset` reads those."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from benchmarks.contenders import Contender, Kind, Place, bucket

_CHUNKS = "litdata-chunks"
_PROCESSES = 2


def fill(place: Place) -> None:
    """Pack the bucket into chunks of the size that litdata's documentation uses."""
    from litdata import optimize

    source = bucket(place)
    names = sorted(entry.name for entry in source.list_all_objects())
    optimize(
        fn=partial(_read, source),
        inputs=names,
        output_dir=os.path.join(place.directory, _CHUNKS),
        chunk_bytes="64MB",
        num_workers=_PROCESSES,
        verbose=False,
    )


def _read(source: Any, name: str) -> tuple[str, bytes]:
    return name, source.object(name).get_reader().read_all()


def make(place: Place) -> Any:
    from litdata import StreamingDataset

    return StreamingDataset(os.path.join(place.directory, _CHUNKS), shuffle=True, transform=_to_bytes)


def _to_bytes(sample: tuple[str, memoryview]) -> tuple[str, bytes]:
    """Make what a worker can hand over of a sample, which refers to the chunk's mapping."""
    return sample[0], bytes(sample[1])


CONTENDERS = {
    "litdata": Contender("litdata, repacked into its chunks", make, needs=("litdata",), fill=fill, kind=Kind.REPACKED)
}
