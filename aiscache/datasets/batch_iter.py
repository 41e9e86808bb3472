"""`AISBatchIterDataset`: a stream of objects, fetched in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from aiscache.datasets.base_iter import AISBaseIterDataset
from aiscache.datasets.progress import with_progress
from aiscache.datasets.readahead import read_windows
from aiscache.errors import ChecksumMismatchError, ConfigError, ObjectChangedError, ObjectNotFoundError

_LOG = logging.getLogger("aiscache")

_OF_ONE_OBJECT = (ObjectNotFoundError, ObjectChangedError, ChecksumMismatchError)


class AISBatchIterDataset(AISBaseIterDataset):
    """An iterable dataset of objects: yields tuples of object name and content, `max_batch_size` fetched together.

    The arguments up to `cont_on_err` are those of `aistore.pytorch`, in its order; further ones are those of
    `AISBaseIterDataset`.

    Arguments:
        client: taken and not used: each source has the client that it was made with.
        max_batch_size: objects looked up, and fetched where they are missing, together; the next batch is fetched while
            one is consumed.
        output_format, streaming, colocation: taken and not used: they shape a request for a batch. Objects come from
            the cache, or one by one straight from the targets that have them, many at a time.
        cont_on_err: log and leave out an object that is missing, changed or damaged, instead of raising. An unreachable
            cluster raises in any case.
    """

    def __init__(
        self,
        ais_source_list: Any,
        client: Any = None,
        prefix_map: Any = None,
        show_progress: bool = False,
        max_batch_size: int = 32,
        output_format: str = ".tar",
        streaming: bool = True,
        colocation: Any = None,
        partition_sources_by_worker: bool = False,
        cont_on_err: bool = False,
        **options: Any,
    ) -> None:
        if max_batch_size < 1:
            raise ConfigError(f"max_batch_size={max_batch_size!r} must be at least 1")
        super().__init__(
            ais_source_list, prefix_map, partition_sources_by_worker, show_progress=show_progress, **options
        )
        self.max_batch_size = max_batch_size
        self.output_format = output_format
        self.streaming = streaming
        self.colocation = colocation
        self.cont_on_err = cont_on_err

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        share, left = self._begin()
        rows = left.tolist()
        samples = read_windows(self._batches(rows), self._batch)
        if self._show_progress:
            title = type(self).__name__
            samples = with_progress(samples, total=len(rows), title=title, worker=share.worker, workers=share.workers)
        return (sample for sample in self._counted(samples) if sample is not None)

    def state_dict(self, loader: Any = None, *, batches: int | None = None) -> dict[str, Any]:
        """As that of `AISBaseIterDataset`; ConfigError for a loader with `cont_on_err`.

        How many samples were left out is known to the workers alone.
        """
        if loader is not None and self.cont_on_err:
            raise ConfigError("with cont_on_err=True batches do not tell where an epoch is: samples may be left out")
        return super().state_dict(loader, batches=batches)

    def _batches(self, rows: list[int]) -> Iterator[list[int]]:
        for start in range(0, len(rows), self.max_batch_size):
            yield rows[start : start + self.max_batch_size]

    def _batch(self, rows: list[int]) -> list[tuple[str, Any] | None]:
        """Return the samples of a batch, None for one that is left out."""
        try:
            return list(self._samples(rows))
        except _OF_ONE_OBJECT:
            if not self.cont_on_err:
                raise
        return [self._sample(row) for row in rows]

    def _sample(self, row: int) -> tuple[str, Any] | None:
        try:
            return self._samples([row])[0]
        except _OF_ONE_OBJECT as error:
            _LOG.warning("left out (cont_on_err=True): %s", str(error))
            return None
