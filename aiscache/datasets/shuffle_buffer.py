"""Shuffling a stream within a buffer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TypeVar

from aiscache.datasets.split import Share

Item = TypeVar("Item")

SHUFFLE_BUFFER = 1000


def chance_of(share: Share, *, seed: int, epoch: int) -> random.Random:
    """Return the random numbers of one worker's epoch: the same whenever it is begun, others for each worker."""
    return random.Random(f"{seed} {epoch} {share.part} {share.parts}")


def mixed(items: Iterator[Item], *, size: int, chance: random.Random) -> Iterator[Item]:
    """Yield each item once, at random from the `size` that were read and not yielded yet."""
    buffer: list[Item] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = chance.randrange(size)
        buffer[place], item = item, buffer[place]  # noqa: PLW2901
        yield item
    chance.shuffle(buffer)
    yield from buffer
