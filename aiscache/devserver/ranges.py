"""The `Range` header as AIStore reads it (recorded: 053-063)."""

from __future__ import annotations

from aiscache.devserver.errors import AisError


def parse(header: str, *, size: int, what: str) -> tuple[int, int]:
    """The half-open byte interval that `header` asks for of an object of `size` bytes.

    Args:
        header: the value of `Range`.
        size: the object's size in bytes.
        what: the object in AIStore's spelling, for messages.

    Raises:
        AisError: 416, in the words recorded for each kind of bad range.
    """
    if "," in header:
        message = f"cannot multi-range read {what} - operation not supported"
        raise AisError(416, message, tcode="ErrUnsupp")
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit != "bytes" or not dash:
        raise AisError(416, f'read range "{header}" is invalid (-)')
    try:
        return _interval(first, last, size)
    except ValueError as invalid:
        raise AisError(416, f'read range "{spec}" is invalid ({invalid})') from None
    except IndexError:
        raise _unsatisfiable(spec, size) from None


def _interval(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        length = _number(last, "end")
        if length == 0 or size == 0:
            raise IndexError
        return max(0, size - length), size
    start = _number(first, "start")
    if start >= size:
        raise IndexError
    if not last:
        return start, size
    end = _number(last, "end")
    if end < start:
        raise ValueError("end")
    return start, min(end + 1, size)


def _number(text: str, which: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(which)
    return int(text)


def _unsatisfiable(spec: str, size: int) -> AisError:
    message = f"size={size}: not satisfiable range [{spec}]"
    content_range = (("Content-Range", f"bytes */{size}"),)
    return AisError(416, message, tcode="ErrRangeNotSatisfiable", headers=content_range)
