"""The state of torch's random numbers as text, so that a shuffled order can be drawn again."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode

import torch

from aiscache.errors import ConfigError


def as_text(random: torch.Tensor) -> str:
    """Return what `torch.get_rng_state()` gave (5,056 bytes, half of them zero) as 4 kB of text."""
    return b64encode(zlib.compress(random.numpy().tobytes())).decode()


def generator_from(text: str) -> torch.Generator:
    """Return a generator in that state; ConfigError if it is none."""
    generator = torch.Generator()
    try:
        state = bytearray(zlib.decompress(b64decode(text, validate=True)))
        generator.set_state(torch.frombuffer(state, dtype=torch.uint8))
    except (ValueError, TypeError, RuntimeError, zlib.error) as error:
        raise ConfigError(f"{text[:20]!r} is no state of torch's random numbers") from error
    return generator
