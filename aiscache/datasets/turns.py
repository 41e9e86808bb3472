"""Where each of a DataLoader's workers is, from how many batches the training loop has taken: `turns_after`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from aiscache.errors import ConfigError

Turn = tuple[int, int]
"""A worker, and how many samples of its share the loop has had."""


def turns_after(
    batches: int, *, workers: int, batch_size: int, drop_last: bool = False, lengths: Sequence[int] | None = None
) -> list[Turn]:
    """Return the turns of all workers, in the order in which their next batches come.

    torch's DataLoader hands over one batch of each worker in turn, whatever they send when; a worker whose share is
    used up is left out. `lengths` are the samples of each worker's share; None if they are dealt out one by one, so
    that none ends a round before another. ConfigError if the shares together have fewer batches.
    """
    if lengths is None:
        most = [batches + 1] * workers
    else:
        most = [length // batch_size if drop_last else -(-length // batch_size) for length in lengths]
    if not 0 <= batches <= sum(most):
        raise ConfigError(f"batches={batches} must be from 0 to the {sum(most)} batches of an epoch")

    def after(rounds: int) -> int:
        return sum(min(count, rounds) for count in most)

    rounds = bisect_right(range(max(most) + 1), batches, key=after) - 1
    begun = batches - after(rounds)  # batches of the round that is under way
    going = [worker for worker in range(workers) if most[worker] > rounds]
    ended = [worker for worker in range(workers) if most[worker] <= rounds]
    taken = {worker: min(most[worker], rounds) for worker in range(workers)}
    for worker in going[:begun]:
        taken[worker] += 1
    return [
        (worker, taken[worker] * batch_size if lengths is None else min(taken[worker] * batch_size, lengths[worker]))
        for worker in going[begun:] + going[:begun] + ended
    ]
