"""The end of a response that trickles in: a read timeout of requests is one for each piece, and pieces may go on."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

from aiscache.origin.settings import LEAST_RATE, OriginSettings


def bounded(settings: OriginSettings) -> dict[str, Any]:
    """Return what to pass with a request so that its body comes at `LEAST_RATE`, or else is an error."""

    def bound(response: Any, **_: object) -> None:
        response.raw = _BoundedBody(response.raw, settings)

    return {"hooks": {"response": bound}}


class _BoundedBody:
    """A `urllib3` response whose body must come at `LEAST_RATE`, but for the time that an attempt may take at all."""

    def __init__(self, raw: Any, settings: OriginSettings) -> None:
        self._raw = raw
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, size: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """Yield the body as it comes, at most `size` bytes at a time; what it raises becomes an error of requests'."""
        from urllib3.exceptions import ReadTimeoutError

        began, received = monotonic(), 0
        while piece := self._raw.read1(size, decode_content=decode_content):
            received += len(piece)
            if monotonic() - began > self._settings.attempt_s + received / LEAST_RATE:
                text = f"{received:,} bytes came in {monotonic() - began:.1f} s"
                self._raw.close()
                raise ReadTimeoutError(self._raw._pool, self._raw.url, text)
            yield piece
