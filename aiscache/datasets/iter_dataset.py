"""`AISIterDataset`: a stream of objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiscache.datasets.base_iter import AISBaseIterDataset
from aiscache.datasets.progress import with_progress
from aiscache.datasets.readahead import read_ahead


class AISIterDataset(AISBaseIterDataset):
    """An iterable dataset of objects: yields tuples of object name and content, in the order of the listing.

    The arguments are those of `AISBaseIterDataset`; the first five may be given by position, as in `aistore.pytorch`.
    `show_progress` shows a bar per worker, on a terminal. While a window of samples is consumed, the next is fetched.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: Any = None,
        etl_name: str | None = None,
        show_progress: bool = False,
        partition_sources_by_worker: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            ais_source_list,
            prefix_map,
            partition_sources_by_worker,
            etl_name=etl_name,
            show_progress=show_progress,
            **options,
        )

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        share, rows = self._begin()
        samples = read_ahead(iter(rows.tolist()), self._samples)
        if self._show_progress:
            title = type(self).__name__
            samples = with_progress(samples, total=len(rows), title=title, worker=share.worker, workers=share.workers)
        return self._counted(samples)
