"""The path of an object's URL: `/v1/objects/BUCKET/NAME`, with the refusals recorded in 028 and 029."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiscache.devserver.errors import AisError

if TYPE_CHECKING:
    from aiscache.devserver.messages import Request

_PREFIX = len("/v1/objects/")


def split_object(request: Request) -> tuple[str, str]:
    """The bucket's and the object's name; a name may begin with a slash or hold two in a row (026, 027).

    Raises:
        AisError: 400 where the name is missing or ends in a slash.
    """
    bucket, slash, name = request.path[_PREFIX:].partition("/")
    if not slash or not name:
        told = request.path.strip("/")
        raise AisError(400, f"URL '{told}' is too short: expected 4 items, got {told.count('/') + 1}")
    if name.endswith("/"):
        raise AisError(400, f'invalid object name "{name}"', tcode="errInvalidPath")
    return bucket, name
