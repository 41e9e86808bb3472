"""The prefetcher: processes that fill the cache ahead of the training loop, in the order in which it will read.

    trainer process                      pool process                     worker processes
    sampler: order, clock    page, link  plan: what next    links         fetch, keep or stage
    -----------------------------------> ------------------------------>  32 requests each in flight

The sampler writes the epoch's order and its clock into a page of shared memory. The pool process holds the plan and
gives chunks of positions to its workers, which fetch into the store. Nobody answers the trainer: it finds the objects
in the store when it asks, and fetches for itself what is not there yet. No process but the trainer imports torch.
"""

from aiscache.prefetch.job import Job
from aiscache.prefetch.page import PrefetchStats
from aiscache.prefetch.prefetcher import Epoch, Prefetcher

__all__ = ["Epoch", "Job", "PrefetchStats", "Prefetcher"]
