"""mosaicml-streaming's own format: `MDSWriter` packs the objects into shards once, `StreamingDataset` reads those."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from benchmarks.contenders import Contender, Kind, Place, bucket
from benchmarks.workloads import BATCH

_SHARDS = "mosaic-shards"
_PROCESSES = 2
_COLUMNS = {"name": "str", "content": "bytes"}


def base() -> ModuleType:
    """Return `streaming.base`, without what the package around it imports: its vision models need torchvision.

    The wheels of torchvision want a torch with CUDA; beside one for CPUs only, they cannot be imported.
    """
    if "streaming" not in sys.modules:
        found = importlib.util.find_spec("streaming")
        assert found is not None
        package = ModuleType("streaming")
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules["streaming"] = package
    return importlib.import_module("streaming.base")


def fill(place: Place) -> None:
    """Pack the bucket into shards of the default size, by processes with a part of the objects each."""
    base()
    logging.disable(logging.WARNING)  # it tells at every step that the directory is there
    from streaming.base.util import merge_index

    directory = os.path.join(place.directory, _SHARDS)
    names = sorted(entry.name for entry in bucket(place).list_all_objects())
    context = multiprocessing.get_context("fork")
    parts = [
        context.Process(target=_write, args=(place, names[part::_PROCESSES], os.path.join(directory, str(part))))
        for part in range(_PROCESSES)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0
    merge_index(directory, keep_local=True)


def _write(place: Place, names: Sequence[str], directory: str) -> None:
    source = bucket(place)
    with base().MDSWriter(out=directory, columns=_COLUMNS) as shards:
        for name in names:
            shards.write({"name": name, "content": source.object(name).get_reader().read_all()})


def make(place: Place) -> Any:
    class Pairs(base().StreamingDataset):  # type: ignore[misc]
        """Samples as pairs, as the other contenders have them."""

        def __getitem__(self, index: int) -> tuple[str, bytes]:
            sample = super().__getitem__(index)
            return sample["name"], sample["content"]

    return Pairs(local=os.path.join(place.directory, _SHARDS), shuffle=True, batch_size=BATCH)


CONTENDERS = {
    "mosaic": Contender(
        "mosaicml-streaming, repacked into its shards", make, needs=("streaming",), fill=fill, kind=Kind.REPACKED
    )
}
