"""A temporary directory of this process, for listings of datasets that have no cache."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache


def process_directory() -> str:
    """Return the directory; it is removed when the process that made it ends, not when a forked child does."""
    return _made_by(os.getpid())


@cache
def _made_by(pid: int) -> str:
    path = tempfile.mkdtemp(prefix="aiscache-")

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return path
