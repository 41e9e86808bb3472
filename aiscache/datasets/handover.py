"""`Handover`: an epoch's number, and the place to go on from in it, from the trainer to its DataLoader workers.

A persistent worker has a copy of the dataset from when it was started: what the trainer chooses later reaches it
through shared memory alone. And a place that was loaded is to be gone on from once, although each epoch's workers get
it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import get_worker_info

from aiscache.datasets.shared_words import SharedWords
from aiscache.datasets.turns import Turn
from aiscache.errors import ConfigError

MOST_WORKERS = 1024

# Shared words: the epoch; workers that read last, 0 for the trainer itself; workers of the place, 0 for none; which
# iteration takes it up, 0 for none yet. Behind them three columns, by worker: its share, samples of it that were
# yielded, 1 once it has taken that up.
_EPOCH, _READERS, _WORKERS, _TAKEN_BY, _TABLE = range(5)


class Handover:
    """What the copies of a dataset have in common that were forked or spawned from one trainer."""

    def __init__(self) -> None:
        self._shared = SharedWords([0] * (_TABLE + 3 * MOST_WORKERS))

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        return self._shared.words[_EPOCH]

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._shared.words[_EPOCH] = epoch

    @property
    def readers(self) -> int:
        """How many workers began to read last; 0 if the trainer itself did, or nobody."""
        return self._shared.words[_READERS]

    @readers.setter
    def readers(self, count: int) -> None:
        self._shared.words[_READERS] = count

    def offer(self, turns: Sequence[Turn]) -> None:
        """Have the workers of the next iteration take up these turns, the first worker the first; none to withdraw."""
        words = self._shared.words
        words[_TAKEN_BY] = 0
        words[_WORKERS] = len(turns)
        for worker, (share, yielded) in enumerate(turns):
            at = _TABLE + 3 * worker
            words[at], words[at + 1], words[at + 2] = share, yielded, 0

    def offered(self) -> list[Turn]:
        """Return the turns that nobody has taken up yet."""
        words = self._shared.words
        count = 0 if words[_TAKEN_BY] else words[_WORKERS]
        return [(words[_TABLE + 3 * worker], words[_TABLE + 3 * worker + 1]) for worker in range(count)]

    def take(self, workers: int) -> Turn | None:
        """Return what is offered to this process, once; None if this iteration begins from the start.

        1. The trainer offers turns. The copies in its workers see them, and so do those of the epochs after.
        2. A worker that begins marks them as taken up by its iteration, and its own as taken up.
        3. A worker of a later epoch finds another iteration's mark; a persistent one finds its own.
        """
        words, info = self._shared.words, get_worker_info()
        worker, iteration = (0, 1) if info is None else (info.id, info.seed - info.id | 1)  # drawn anew for each
        if not words[_WORKERS] or words[_TAKEN_BY] not in (0, iteration):
            return None
        if words[_WORKERS] != workers:
            raise ConfigError(
                f"the state was taken with {words[_WORKERS]} workers and cannot be gone on from with {workers}: "
                f"each of them has a share of its own"
            )
        at = _TABLE + 3 * worker
        if words[at + 2]:
            return None
        words[_TAKEN_BY], words[at + 2] = iteration, 1
        return words[at], words[at + 1]
