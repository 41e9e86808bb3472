"""Made-up objects: names by number, bytes by name, size and seed. The same arguments give the same bytes anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import overload

import msgspec
import xxhash

_BLOCK = 1 << 20  # bytes of random data that all objects of one seed are cut from
_MARK = 16  # bytes at the head of each object that no other object has


@lru_cache(maxsize=4)
def _block(seed: int) -> bytes:
    block = random.Random(seed).randbytes(_BLOCK)
    return block + block


def content(name: str, size: int, seed: int) -> bytes:
    """The bytes of the made-up object `name`: a digest of its name, then a cut of the seed's random block.

    Costs about one copy of the bytes. Objects of at least 16 bytes all differ.
    """
    mark = xxhash.xxh3_128_digest(name.encode("utf-8", "surrogateescape"), seed)
    start = int.from_bytes(mark[:4], "big") % _BLOCK
    rest = size - _MARK
    if rest <= 0:
        return mark[:size]
    if rest <= _BLOCK:
        return mark + _block(seed)[start : start + rest]
    repeats = rest // _BLOCK + 1
    rotated = _block(seed)[start : start + _BLOCK]
    return mark + (rotated * repeats)[:rest]


class Spec(msgspec.Struct, frozen=True):
    """What `DevCluster.generate` was asked for; small enough to send to every node."""

    count: int
    smallest: int
    largest: int
    seed: int
    prefix: str
    suffix: str
    digits: int

    def name(self, number: int) -> str:
        """The name of object `number`, zero-padded so that names sort by number."""
        return f"{self.prefix}{number:0{self.digits}d}{self.suffix}"

    def size(self, name: str) -> int:
        """The size in bytes of the object `name`, spread evenly over the range asked for."""
        if self.smallest == self.largest:
            return self.smallest
        spread = self.largest - self.smallest + 1
        return self.smallest + xxhash.xxh3_64_intdigest(name.encode(), self.seed) % spread


class Generated(Sequence[str]):
    """The names of a generated bucket, in order, with the bytes each object has. Costs no memory for a name."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def __len__(self) -> int:
        return self._spec.count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._spec.name(number) for number in numbers]
        return self._spec.name(numbers)

    def size(self, name: str) -> int:
        """The size in bytes of the object `name`."""
        return self._spec.size(name)

    def content(self, name: str) -> bytes:
        """The bytes that the cluster holds for `name`, for a test to compare with."""
        return content(name, self.size(name), self._spec.seed)
