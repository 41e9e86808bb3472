"""multiprocessing's contexts as `aiscache.DataLoader` uses them: with queues and events that Ctrl-C leaves unlocked."""

from __future__ import annotations

from multiprocessing import context

from aiscache.channels import Event, Queue
from aiscache.fork_process import ForkProcess


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


class ForkServerContext(_Channels, context.ForkServerContext):
    """For workers that are forked by a process of their own."""


CONTEXTS: dict[str, type[_Channels]] = {"fork": ForkContext, "spawn": SpawnContext, "forkserver": ForkServerContext}
"""By start method."""
