"""Numbers as people read them."""

from __future__ import annotations

_UNITS_S = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def counted(number: int, noun: str) -> str:
    """Return `1 object`, `20,000 objects`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(seconds: float) -> str:
    """Return how long ago something was, in its largest unit: `3 d`, `12 min`."""
    unit, length = next(((unit, length) for unit, length in _UNITS_S if seconds >= length), _UNITS_S[-1])
    return f"{max(0, int(seconds / length))} {unit}"
