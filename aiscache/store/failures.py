"""Failures of this machine, such as a full disk or a damaged index: what becomes of them.

Where somebody reads, they are counted, the first of a kind is warned of, and the object comes from the cluster instead
(`complain`). Where somebody asked for something to be done to the cache, they are errors (`as_errors`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import lmdb

from aiscache.errors import CacheClosedError, CacheError
from aiscache.stats import Counters

_LOG = logging.getLogger("aiscache")


class Failures:
    """The failures of one store; `closed` is set when the store closes, as what fails then fails by that."""

    def __init__(self, path: Path, counters: Counters) -> None:
        self.path = path
        self._counters = counters
        self._complaints: set[str] = set()
        self.closed = False

    def check_open(self) -> None:
        """Raise CacheClosedError if the store was closed."""
        if self.closed:
            raise CacheClosedError(f"the cache in {self.path} was closed")

    def complain(self, what: str, error: Exception) -> None:
        """Count a local failure, and warn of the first of its kind; CacheClosedError if the store was closed."""
        if self.closed:
            raise CacheClosedError(f"the cache in {self.path} was closed") from error
        self._counters.add("fallbacks")
        if what not in self._complaints:
            # The text, not the error: a log record that is kept would keep the error's frames, and all they hold.
            self._complaints.add(what)
            _LOG.warning(
                "cannot %s the cache in %s: %s; what it does not have is read from the cluster (said once)",
                what,
                self.path,
                str(error),
            )

    @contextlib.contextmanager
    def as_errors(self, what: str) -> Iterator[None]:
        """Make a CacheError of a failure of the index or of the file system, in what the user asked for."""
        self.check_open()
        try:
            yield
        except (OSError, lmdb.Error) as error:
            raise CacheError(f"cannot {what} the cache in {self.path}: {error}") from error
