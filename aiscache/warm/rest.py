"""What the pool left: objects that others were fetching, that had no room, or that failed. Why is told here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aiscache.errors import OriginError, OriginTimeoutError, UnreachableError
from aiscache.fill import Wanted, fill
from aiscache.keys import pack_identity
from aiscache.prefetch.job import Job, Rows
from aiscache.store import Store
from aiscache.warm.outcome import Failure

_BLOCK = 64
_FIRST_BLOCK = 8  # if the cluster gives none of these, the rest is not tried: each may take minutes to fail


class Rest(NamedTuple):
    """What became of the rows: fetched here, brought by others, without room, failed."""

    fetched_objects: int
    fetched_bytes: int
    came: int
    unfit: int
    failures: list[Failure]


def settle_rest(job: Job, store: Store, rows: Rows, *, no_room: int, progress: Callable[[int, int], None]) -> Rest:
    """Wait for what others fetch, fetch what is left in this process, and note who had no room and what failed.

    `no_room` is how many the pool left as the cache was full: room is then looked for before an object is fetched.
    `progress` is called with fetched objects and bytes.
    """
    if no_room >= len(rows):
        return Rest(0, 0, 0, len(rows), [])
    fetched = size = came = unfit = 0
    failures: list[Failure] = []
    pending = [job.wanted(row) for row in rows.tolist()]
    block = _FIRST_BLOCK
    while pending:
        now, pending = pending[:block], pending[block:]
        fit = [one for one in now if not no_room or _has_room(store, one)]
        unfit += len(now) - len(fit)
        before = store.counters.process()
        failed = _fetch(job, store, fit)
        did = store.counters.process() - before
        here = sum(store.contains(one.key, one.digest) for one in fit)
        fetched, size = fetched + min(did.fetched_objects, here), size + did.fetched_bytes
        came += max(0, here - did.fetched_objects)
        unfit += len(fit) - here - len(failed)
        failures += [Failure(one.ref.url, str(error)) for one, error in failed]
        progress(fetched, size)
        if fit and len(failed) == len(fit) and all(_is_about_all(error) for _, error in failed):
            failures += [Failure(one.ref.url, "not tried, as the cluster gave nothing") for one in pending]
            break
        block = _BLOCK
    return Rest(fetched, size, came, unfit, failures)


def _fetch(job: Job, store: Store, wanted: list[Wanted]) -> list[tuple[Wanted, OriginError]]:
    """Fetch objects as any reader would, and return those that failed."""
    failures = []
    for cluster in dict.fromkeys(one.ref.cluster for one in wanted):
        ours = [one for one in wanted if one.ref.cluster == cluster]
        for index, outcome in fill(store, job.origins[cluster], ours, in_flight=job.connections):
            if isinstance(outcome, OriginError):
                failures.append((ours[index], outcome))
    return failures


def _is_about_all(error: OriginError) -> bool:
    """Tell whether an error says more of the cluster than of the object."""
    return isinstance(error, UnreachableError | OriginTimeoutError) or getattr(error, "status", 0) >= 500


def _has_room(store: Store, wanted: Wanted) -> bool:
    """Tell whether the cache has room for an object; of unknown size: whether it has for a small one."""
    length = max(wanted.ref.size, 0)
    reservation = store.reserve(key=wanted.key, digest=wanted.digest, identity=pack_identity(wanted.ref), length=length)
    if reservation is None:
        return False
    store.give_up(reservation)
    return True
