"""multiprocessing's contexts as `aiscache.DataLoader` uses them, with our processes, queues and events."""

from __future__ import annotations

from multiprocessing import context

from aiscache.channels import Event, Queue
from aiscache.worker_process import ForkProcess, ForkServerProcess, SpawnProcess


class _Channels(context.BaseContext):
    """A context with our queues and events."""

    def Queue(self, maxsize: int = 0) -> Queue:  # noqa: N802
        """Make a queue."""
        return Queue(maxsize, ctx=self.get_context())

    def Event(self) -> Event:  # noqa: N802
        """Make an event."""
        return Event(ctx=self.get_context())


class ForkContext(_Channels, context.ForkContext):
    """For workers that are forked."""

    Process = ForkProcess


class SpawnContext(_Channels, context.SpawnContext):
    """For workers that are started as programs."""

    Process = SpawnProcess


class ForkServerContext(_Channels, context.ForkServerContext):
    """For workers that are forked by a process of their own."""

    Process = ForkServerProcess


CONTEXTS: dict[str, type[_Channels]] = {"fork": ForkContext, "spawn": SpawnContext, "forkserver": ForkServerContext}
"""By start method."""
