"""What an answer of the cluster that is not 200 means: from status and JSON body to an error that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from aiscache.errors import (
    AuthenticationError,
    BucketNotFoundError,
    EtlNotFoundError,
    ObjectNotFoundError,
    OriginError,
)
from aiscache.keys import ObjectRef

BAD_CHECKSUM_CODE = "ErrBadCksum"
_BUCKET_CODES = ("ErrBckNotFound", "ErrRemoteBckNotFound", "ErrRemoteBucketOffline")


class _Said(msgspec.Struct):
    """The JSON that AIS sends with an error: in the body, or in the header `Hdr-Error` of an answer to HEAD."""

    tcode: str = ""
    message: str = ""


_DECODER = msgspec.json.Decoder(_Said)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status that is not 200, with the cluster's code and words for it ("" where it had none)."""

    status: int
    code: str = ""
    message: str = ""
    retry_after_s: float | None = None

    @classmethod
    def read(cls, status: int, body: bytes, *, retry_after_s: float | None = None) -> Refusal:
        """Read an error's JSON; a body that is not AIS's becomes the message, cut short."""
        try:
            said = _DECODER.decode(body)
        except msgspec.DecodeError:
            return cls(status, "", body[:200].decode("utf-8", "replace").strip(), retry_after_s)
        return cls(status, said.tcode, said.message, retry_after_s)


def error_of(refusal: Refusal, ref: ObjectRef, *, endpoint: str, tries: int = 1) -> OriginError:
    """Return the error for an object that the cluster refused, with `status` and `url` as attributes."""
    details: dict[str, Any] = {"status": refusal.status, "url": ref.url, "endpoint": endpoint}
    said = f' The cluster said: "{refusal.message}".' if refusal.message else ""
    if refusal.status in (401, 403):
        return AuthenticationError(
            f"{endpoint} refused to serve {ref.url} (HTTP {refusal.status}); set AIS_AUTHN_TOKEN or "
            f"Client(token=...) to a valid token with access to the bucket.{said}",
            **details,
        )
    if refusal.status == 404:
        return _missing(refusal, ref, endpoint, said, details)
    after = f" after {tries} tries" if tries > 1 else ""
    return OriginError(f"{endpoint} answered HTTP {refusal.status} for {ref.url}{after}.{said}", **details)


def _missing(refusal: Refusal, ref: ObjectRef, endpoint: str, said: str, details: dict[str, Any]) -> OriginError:
    text = refusal.message.lower()
    bucket = f"{ref.provider}://{ref.namespace + '/' if ref.namespace else ''}{ref.bucket}"
    if ref.etl and "etl" in text and "://" not in text:
        return EtlNotFoundError(
            f"ETL {ref.etl!r} does not exist on the cluster at {endpoint}; initialise it, or drop etl_name.{said}",
            **details,
        )
    if refusal.code in _BUCKET_CODES or text.startswith("bucket ") or "lookup bucket" in text:
        return BucketNotFoundError(
            f"bucket {bucket} does not exist on the cluster at {endpoint}; check name, provider and endpoint.{said}",
            **details,
        )
    if refusal.code == "ErrNotFound" or "does not exist" in text or "doesn't exist" in text or not text:
        return ObjectNotFoundError(
            f"object {ref.url} does not exist on the cluster at {endpoint}; if it was deleted after the dataset was "
            f"listed, make the dataset anew.{said}",
            **details,
        )
    return OriginError(f"{endpoint} answered HTTP 404 for {ref.url}; is it an AIS proxy?{said}", **details)
