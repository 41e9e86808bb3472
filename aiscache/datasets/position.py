"""`Position`: which epoch an iterable dataset is in, and where in it.

How much was yielded is known where it is yielded. In a DataLoader's worker that is ahead of the training loop; the loop
alone knows how many batches it has taken, and from that follows how much it has had of each worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import get_worker_info

from aiscache.datasets.handover import MOST_WORKERS, Handover
from aiscache.datasets.split import Share
from aiscache.datasets.turns import Turn, turns_after
from aiscache.errors import ConfigError

_STATE_VERSION = 1


class Position:
    """A place in an epoch. Copies that are forked or spawned share the epoch's number, and a place that was loaded."""

    def __init__(self) -> None:
        self._handover = Handover()
        self._own: Turn | None = None  # loaded in a worker, for itself
        self._begun_in = 0  # the process; a forked worker inherits what its trainer read
        self._share = 0
        self.yielded = 0

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        return self._handover.epoch

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch next; go on in it, if that is where a loaded state left off."""
        if self._handover.epoch == epoch and self._handover.offered():
            return
        self._handover.epoch, self._handover.readers = epoch, 0
        self._handover.offer([])
        self._own, self._begun_in = None, 0

    def begin(self, share: Share) -> tuple[Share, int]:
        """Return the share that this process is to read now, and how many of its samples to pass over.

        It is another worker's share where a loaded state was taken while it was that one's turn: a DataLoader asks its
        first worker first.
        """
        info = get_worker_info()
        turn, self._own = self._own or self._handover.take(share.workers), None
        self._handover.readers = 0 if info is None else info.num_workers
        self._share, self.yielded = turn or (share.worker, 0)
        self._begun_in = os.getpid()
        return replace(share, worker=self._share), self.yielded

    def state(
        self,
        loader: Any,
        batches: int | None,
        *,
        of: Mapping[str, Any],
        lengths: Callable[[int], Sequence[int]] | None = None,
    ) -> dict[str, Any]:
        """Return where this process is, or where a loader's workers are when its loop has taken so many batches.

        `of` says of what: it must be equal when the state is loaded. `lengths` tells the samples of each of so many
        workers; None if they are dealt out one by one.
        """
        if (loader is None) != (batches is None):
            raise ConfigError("state_dict(loader, batches=n) needs both the loader and the number of its batches")
        if loader is None or batches is None:
            turns, workers = self._here()
        else:
            workers = max(loader.num_workers, 1)
            turns = turns_after(
                batches,
                workers=workers,
                batch_size=loader.batch_size or 1,
                drop_last=loader.drop_last,
                lengths=None if lengths is None else lengths(workers),
            )
        place = {"epoch": self.epoch, "workers": workers, "turns": list(map(list, turns))}
        return {"version": _STATE_VERSION, **of, **place}

    def load(self, state: Mapping[str, Any], *, of: Mapping[str, Any]) -> None:
        """Go on from a state; ConfigError if it is none, or of something else, or not for this process."""
        ours = {"version": _STATE_VERSION, **of}
        theirs = {name: state.get(name) for name in ours}
        if theirs != ours:
            raise ConfigError(f"a state of {theirs} does not fit a dataset of {ours}")
        try:
            epoch, workers = int(state["epoch"]), int(state["workers"])
            turns = [(int(share), int(yielded)) for share, yielded in state["turns"]]
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"state {state!r} is not of an iterable dataset") from None
        info = get_worker_info()
        if not turns or len(turns) > MOST_WORKERS or (len(turns) != workers and info is None):
            raise ConfigError(f"state {state!r} is of {len(turns)} of {workers} workers, and not for this process")
        self._handover.epoch, self._begun_in = epoch, 0
        if info is None:
            self._handover.readers = 0
            self._handover.offer(turns if any(yielded for _, yielded in turns) else [])
        else:
            self._own = turns[info.id if len(turns) == info.num_workers else 0]

    def _here(self) -> tuple[list[Turn], int]:
        """Return the turns that this process knows of, and of how many workers they are.

        They are those loaded that nobody has taken up yet, or its own; ConfigError if workers of its own are further.
        """
        info, readers, offered = get_worker_info(), self._handover.readers, self._handover.offered()
        if info is None and readers:
            raise ConfigError(
                f"{readers} workers of a DataLoader read this dataset ahead of the training loop: give the loader, and "
                "how many of its batches the loop has taken in this epoch, with state_dict(loader, batches=n)"
            )
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if self._own is not None:
            return [self._own], workers
        if self._begun_in == os.getpid():
            return [(self._share, self.yielded)], workers
        if info is None and offered:
            return offered, len(offered)
        return [(worker, 0)], workers
