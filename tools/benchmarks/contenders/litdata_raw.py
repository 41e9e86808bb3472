"""litdata's reader of plain files, over files on tmpfs of its own: it writes an index beside them."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from benchmarks.contenders import Contender, Place
from benchmarks.contenders.files import fill

_FILES = "litdata-files"


def make(place: Place) -> Any:
    from litdata import StreamingRawDataset

    class Raw(StreamingRawDataset):  # type: ignore[misc]
        """Samples with their names, as the other contenders have them."""

        def __getitem__(self, index: int) -> tuple[str, bytes]:
            return str(index), super().__getitem__(index)

        def __getitems__(self, indices: list[int]) -> list[tuple[str, bytes]]:
            return list(zip(map(str, indices), super().__getitems__(indices), strict=True))

    return Raw(os.path.join(place.directory, _FILES), cache_dir=os.path.join(place.directory, "litdata"))


CONTENDERS = {
    "litdata-raw": Contender(
        "litdata StreamingRawDataset over such files", make, needs=("litdata",), fill=partial(fill, folder=_FILES)
    )
}
