"""Warming: bringing all objects of some sources into the cache, before anybody reads them.

    listing -> what is missing, and does it fit -> the prefetcher's pool -> what it left, and why

The order is that of the listing. Nothing is staged, since nobody reads: what has no room is not fetched.
"""

from aiscache.warm.outcome import Failure, Need, Warmed
from aiscache.warm.warm import warm

__all__ = ["Failure", "Need", "Warmed", "warm"]
