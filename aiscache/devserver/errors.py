"""An error as AIStore tells it: a JSON body, or the same JSON in the header `Hdr-Error` of a HEAD answer.

Recorded: 119-130. `tcode` is left out where the error has no type.
"""

from __future__ import annotations

import json


class AisError(Exception):
    """A request that fails with an HTTP status and AIStore's message.

    Args:
        status: the HTTP status.
        message: AIStore's words; the node and the request are added where the answer is written.
        tcode: AIStore's type of the error, empty for an untyped one.
        headers: further headers of the answer (a 416 tells the size).
    """

    def __init__(
        self, status: int, message: str, *, tcode: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.tcode = tcode
        self.headers = headers


def describe(error: AisError, *, method: str, path: str, remote: str, node: str) -> str:
    """The JSON of an error, in the order of fields that AIStore writes."""
    told: dict[str, str | int] = {"tcode": error.tcode} if error.tcode else {}
    told |= {"message": error.message, "method": method, "url_path": path, "remote_addr": remote}
    told |= {"caller": "", "node": node, "status": error.status}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False)


def no_bucket(bucket: str) -> AisError:
    """The bucket is missing (recorded: 121-124). `bucket` reads like `ais://name`."""
    return AisError(404, f'bucket "{bucket}" does not exist', tcode="ErrBckNotFound")


def no_object(node: str, what: str) -> AisError:
    """The object is missing, or this target does not own it: AIStore says the same for both (recorded: 047, 119)."""
    return AisError(404, f"{node}: {what} does not exist", tcode="ErrNotFound")
