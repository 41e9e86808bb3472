"""What is said of that which an offline cache does not have."""

from __future__ import annotations

from aiscache.errors import NotCachedError


def not_cached(url: str, *, cache: str | None, missing: int, of: int) -> NotCachedError:
    """Return the error for an object; `missing` of `of` objects are not in the cache (None: the unnamed one)."""
    return NotCachedError(
        f"{url} is not in {_place(cache)}, and that is offline ({WHY}), so nothing is fetched; missing are {missing:,} "
        f"of {of:,} objects. {ADVICE}",
        missing=missing,
    )


def not_listed(sources: str, *, cache: str | None, endpoint: str) -> NotCachedError:
    """Return the error for a dataset whose listing is not in the cache."""
    return NotCachedError(
        f"no listing of {sources} at {endpoint} is in {_place(cache)}, and that is offline ({WHY}), so none is made. "
        f"{ADVICE}, or make the dataset then: with the same sources, prefixes, ETL and endpoint",
        missing=1,
    )


WHY = "offline=True, or AISCACHE_OFFLINE"
ADVICE = "Run `aiscache warm` on this machine while the cluster can be reached"


def _place(cache: str | None) -> str:
    return "the unnamed cache" if cache is None else f"the cache in {cache}"
