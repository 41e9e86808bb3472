"""`Store`: the bytes of objects by key, shared by all processes of a machine. It knows nothing of where they come from.

Here it is opened, put together, kept from crossing a fork, and closed. What it does is in `reading`, `publishing`,
`eviction` and `upkeep`.

One `Store` per process and directory (see `registry`), used by all threads.
"""

from __future__ import annotations

import contextlib
from contextlib import ExitStack

import lmdb

from aiscache.errors import CacheDirectoryError
from aiscache.locks import ByteLocks
from aiscache.stats import Counters
from aiscache.store.directory import Directory
from aiscache.store.eviction import Eviction, InUse
from aiscache.store.failures import Failures
from aiscache.store.index import STAGING
from aiscache.store.publishing import Publishing
from aiscache.store.reading import Reading
from aiscache.store.reclaim import Reclaimer, keep_all
from aiscache.store.recovery import close_index, is_lost, maintenance, note_boot, open_index, rebuild
from aiscache.store.segment import MappedSegments, Segment
from aiscache.store.space import Space
from aiscache.store.staging import Staging
from aiscache.store.tiers import make_tiers
from aiscache.store.upkeep import Upkeep
from aiscache.uninterrupted import Uninterrupted


class Store:
    """The store in a directory; `capacity_bytes` and `memory_bytes` as in `CacheSettings`.

    `in_use` tells which of some records somebody still wants: making room for new objects spares those.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        capacity_bytes: int | None = None,
        memory_bytes: int | None = None,
        verify_reads: bool = False,
        in_use: InUse = keep_all,
    ) -> None:
        self.directory = directory
        with ExitStack() as undo:
            try:
                self._open_files(undo, capacity_bytes=capacity_bytes, memory_bytes=memory_bytes)
            except (OSError, lmdb.Error) as error:
                raise CacheDirectoryError(
                    f"the cache in {directory.path} cannot be opened: {error}; put that right, or give another one"
                ) from error
            undo.pop_all()
        self._staging: Staging | None = None
        self._put_together(in_use, verify_reads=verify_reads)
        try:
            self._reclaimer.adopt()
        except (OSError, lmdb.Error) as error:  # whoever makes room does it
            self.failures.complain("tidy up", error)

    def _open_files(self, undo: ExitStack, *, capacity_bytes: int | None, memory_bytes: int | None) -> None:
        directory = self.directory
        self._leases = ByteLocks(directory.leases)
        undo.callback(self._leases.close)
        map_bytes = 256 << 20 if capacity_bytes is None else max(256 << 20, capacity_bytes // 8)
        with maintenance(self._leases):
            self._index, broken = open_index(directory, self._leases, map_bytes=map_bytes)
            undo.callback(self._index.close)
            self.tiers = make_tiers(directory, self._index, capacity_bytes=capacity_bytes, memory_bytes=memory_bytes)
            if broken or is_lost(self._index, self.tiers):
                rebuild(self._index, tiers=self.tiers, leases_path=directory.leases)
            note_boot(directory)
        self.counters = Counters(directory.stats)

    def _put_together(self, in_use: InUse, *, verify_reads: bool) -> None:
        index, tiers, leases, counters = self._index, self.tiers, self._leases, self.counters
        failures = self.failures = Failures(self.directory.path, counters)
        mapped = self._mapped = MappedSegments(leases, tiers, home=str(self.directory.path), verify_reads=verify_reads)
        space = self._space = Space(
            self.directory,
            index,
            tiers=tiers,
            leases=leases,
            make_room=self._make_room,
        )
        reclaimer = self._reclaimer = Reclaimer(
            index, tiers=tiers, leases=leases, mapped=mapped, own_segments=self._own_segments
        )
        self.eviction = Eviction(
            in_use,
            tiers=tiers,
            leases=leases,
            mapped=mapped,
            space=space,
            reclaimer=reclaimer,
            counters=counters,
            failures=failures,
        )
        self.upkeep = Upkeep(
            index,
            tiers=tiers,
            leases=leases,
            mapped=mapped,
            space=space,
            reclaimer=reclaimer,
            counters=counters,
            failures=failures,
        )
        # Bound, not wrapped: they are called for every object, and a read takes 3 us.
        reading = Reading(index, tiers=tiers, mapped=mapped, counters=counters, failures=failures)
        self.get, self.get_many = reading.get, reading.get_many
        self.contains, self.segments_of = reading.contains, reading.segments_of
        publishing = Publishing(index, space=space, mapped=mapped, counters=counters, failures=failures)
        self.reserve, self.give_up = publishing.reserve, publishing.give_up
        self.publish, self.keep = publishing.publish, publishing.keep

    def attach(self, segment_id: int, tier: int) -> Segment | None:
        """Map and lease a segment that another process of this cache read from; None if it is gone."""
        if self.failures.closed or tier not in self.tiers:
            return None
        return self._mapped.get(segment_id) or self._mapped.map(segment_id, tier, suspect=False)

    def trim(self) -> int:
        """Unmap the segments that were not read since the last trim and that no view holds."""
        with Uninterrupted():
            return self._mapped.trim()

    def trim_staged(self) -> None:
        """Unmap staging segments that were not read for a moment and that no view holds; 0.1 us if there are none."""
        if self._mapped.staged:
            self._mapped.trim_staged()

    def open_staging(self, budget_bytes: int) -> Staging:
        """Return this process's staging segments, which close with the store."""
        self.failures.check_open()
        self._staging = Staging(
            self._index, tier=self.tiers[STAGING], leases=self._leases, mapped=self._mapped, budget_bytes=budget_bytes
        )
        return self._staging

    def close(self) -> None:
        """Seal what this process wrote and free all it holds.

        Views that live stay valid: the locks on their segments go with the last of them, since others may punch holes
        in what nobody has locked. The same holds for reservations that are out.
        """
        if self.failures.closed:
            return
        self.failures.closed = True
        if self._staging is not None:
            self._staging.close()
        writers = self._space.close()
        held = self._mapped.close()
        self.counters.close()
        close_index(self._index, self.directory, self._leases)
        self._leases.close_after([*writers, *held])

    def before_fork(self) -> None:
        """Wait until no transaction is open and nothing is being mapped or swept; start none until `after_fork_...`."""
        self._mapped.lock.acquire()
        self._index.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._index.after_fork()
        self._mapped.lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of what belongs to the parent, without a change to it; this object is then of no more use.

        Views that the child inherited are leased again, in its own name: the parent may end before it.
        """
        self.after_fork_in_parent()
        self.failures.closed = True
        self._leases.close()
        held = self._mapped.abandon()
        with contextlib.suppress(OSError):
            leases = ByteLocks(self.directory.leases)
            for segment_id in held:
                leases.try_shared(segment_id)
            leases.close_after(held.values())
        self.counters.close()
        self._index.close()

    def _make_room(self, tier: int, needed: int) -> bool:
        return self.eviction.make_room(tier, needed)  # which is made after the space that it frees

    def _own_segments(self) -> set[int]:
        """Return the segments that this process writes."""
        staged = () if self._staging is None else self._staging.segments
        return self._space.own_segments.union(staged)
