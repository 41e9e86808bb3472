"""Requests counted by kind, and bytes of bodies sent, on one node."""

from __future__ import annotations

# Each request of a client is counted once, where it gets its last answer; a proxy's redirect is a REDIRECT.
#   GET HEAD PUT DELETE POST PATCH   requests for one object
#   BATCH      Get-Batch, once for a batch whatever the number of its entries
#   LIST       a page of a listing
#   BUCKET     create, delete, head, summary of a bucket, and the list of buckets
#   SMAP       the cluster map
#   OTHER      health and everything else
#   REDIRECT   answers 301 and 307 of the proxy
#   BYTES      bytes of response bodies handed to the kernel
KINDS = (
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "POST",
    "PATCH",
    "BATCH",
    "LIST",
    "BUCKET",
    "SMAP",
    "OTHER",
    "REDIRECT",
    "BYTES",
)


def zero() -> dict[str, int]:
    """A count of nothing: every kind is present, so that a test can compare whole dicts."""
    return dict.fromkeys(KINDS, 0)


def add(counts: dict[str, int], others: dict[str, int]) -> None:
    """Add `others` to `counts` in place."""
    for kind, count in others.items():
        counts[kind] = counts.get(kind, 0) + count
