"""Queues and events after Ctrl-C: nobody waits for a lock that nobody is going to let go."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import synchronize
from typing import Any

import pytest

from aiscache.channels import Event, Queue
from aiscache.contexts import CONTEXTS

PROMPTLY_S = 10.0

contexts = pytest.mark.parametrize("context", [make() for make in CONTEXTS.values()], ids=list(CONTEXTS))


def interrupted(take: Callable[..., Any]) -> Callable[..., Any]:
    """Return what takes a lock, and gets SIGINT when it has it and has not returned yet."""

    def wrapper(*arguments: Any) -> Any:
        taken = take(*arguments)
        if threading.get_ident() == threading.main_thread().ident:
            os.kill(os.getpid(), signal.SIGINT)
        return taken

    return wrapper


@contexts
def test_a_queue_goes_on_after_an_interrupt(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Queue = context.Queue()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Condition, "__enter__", interrupted(threading.Condition.__enter__))
        for number in range(3):
            with pytest.raises(KeyboardInterrupt):
                queue.put(number)
        assert [queue.get(timeout=PROMPTLY_S) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyboardInterrupt):
            queue.close()
    queue.join_thread()


def look(event: Event, looked: Any) -> None:
    looked.put(event.is_set())


@contexts
def test_an_event_is_seen_by_processes(context: Any) -> None:
    event, looked = context.Event(), context.Queue()
    for known in (False, True):
        process = context.Process(target=look, args=(event, looked))
        process.start()
        assert looked.get(timeout=PROMPTLY_S) is known
        process.join(PROMPTLY_S)
        assert process.exitcode == 0
        event.set()
    looked.close()
    looked.join_thread()


def die_looking(event: Event) -> None:
    """Look at an event, and be killed in the middle of that if it takes a lock."""
    enter = synchronize.Condition.__enter__

    def dying(condition: Any) -> Any:
        enter(condition)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    synchronize.Condition.__enter__ = dying  # type: ignore[method-assign,assignment]
    event.is_set()


@contexts
def test_an_event_is_looked_at_without_a_lock(context: Any) -> None:
    event = context.Event()
    process = context.Process(target=die_looking, args=(event,))
    process.start()
    process.join(PROMPTLY_S)
    assert process.exitcode == 0
    event.set()
    assert event.is_set()


def test_setting_an_event_is_not_torn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    event = CONTEXTS["fork"]().Event()
    with monkeypatch.context() as patched:
        patched.setattr(synchronize.Condition, "__enter__", interrupted(synchronize.Condition.__enter__))
        with pytest.raises(KeyboardInterrupt):
            event.set()
    assert event.wait(timeout=PROMPTLY_S)
