"""The objects of the bucket: their bytes follow from name and version, so whoever reads them can tell what they are.

AIStore counts an object's versions from 1 on; `serial` is that number.
"""

from __future__ import annotations

import random

BUCKET = "soak"
FOLDERS = "abc"
SIZES = (0, 1, 700, 5_000, 40_000, 40_000, 90_000, 200_000)
LARGEST = max(SIZES)
MEAN = sum(SIZES) // len(SIZES)


def names(count: int) -> list[str]:
    return [f"{FOLDERS[number % len(FOLDERS)]}/{number:05}" for number in range(count)]


def number_of(name: str) -> int:
    return int(name.partition("/")[2])


def content(name: str, serial: int) -> bytes:
    chance = random.Random(f"{name} {serial}")
    return chance.randbytes(chance.choice(SIZES))
