"""`SharedWords`: numbers that a dataset in the trainer and its copies in DataLoader workers have in common."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any


class SharedWords:
    """A row of signed 64-bit numbers in memory of this process and of all that it forks or spawns.

    Pickled in any other way it becomes a row of its own, with the same numbers. Uses a descriptor, no file.
    """

    def __init__(self, values: Sequence[int]) -> None:
        fd = os.memfd_create("aiscache-dataset", os.MFD_CLOEXEC)
        os.ftruncate(fd, 8 * len(values))
        self._map(fd)
        for place, value in enumerate(values):
            self.words[place] = value

    def _map(self, fd: int) -> None:
        self._fd = fd
        self.words = memoryview(mmap.mmap(fd, 0)).cast("q")

    @classmethod
    def _attached(cls, passed: Any) -> SharedWords:
        shared = cls.__new__(cls)
        shared._map(passed.detach())
        return shared

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            return SharedWords, (self.words.tolist(),)
        return SharedWords._attached, (DupFd(self._fd),)

    def __del__(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)
