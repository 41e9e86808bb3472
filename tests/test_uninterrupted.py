"""Ctrl-C, and the news of a child's death, wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from aiscache import uninterrupted
from aiscache.uninterrupted import Uninterrupted


@pytest.fixture(autouse=True)
def _handler_is_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_comes_when_the_outermost_step_has_ended() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted():  # noqa: PT012
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_an_interrupt_is_not_lost_when_the_step_fails() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, Uninterrupted():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the step")
    assert isinstance(caught.value.__context__, ValueError)


def test_without_an_interrupt_nothing_happens() -> None:
    with Uninterrupted():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(ValueError, match="of the step"), Uninterrupted():
        raise ValueError("of the step")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_disposition_that_is_no_function_is_left_alone(handler: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, handler)
    with Uninterrupted():
        assert signal.getsignal(signal.SIGINT) is handler
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_what_a_signal_will_do_is_known_in_the_middle_of_a_step() -> None:
    with Uninterrupted():
        assert uninterrupted.raises_keyboard_interrupt()
    signal.signal(signal.SIGINT, lambda *_: None)
    with Uninterrupted():
        assert not uninterrupted.raises_keyboard_interrupt()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_have_no_interrupts() -> None:
    def work() -> None:
        with Uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))

    found: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def fail(*_: object) -> None:
    raise RuntimeError("a worker died")


@pytest.fixture
def child_handler() -> Iterator[None]:
    """A handler of SIGCHLD that raises an error, as torch's does."""
    before = signal.signal(signal.SIGCHLD, fail)
    yield
    assert signal.getsignal(signal.SIGCHLD) is fail
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("child_handler")
@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN])
def test_a_child_that_dies_is_heard_of_when_the_step_has_ended(interrupt: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, interrupt)
    done = []
    with pytest.raises(RuntimeError, match="a worker died"), Uninterrupted():  # noqa: PT012
        with Uninterrupted():
            signal.raise_signal(signal.SIGCHLD)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.usefixtures("child_handler")
def test_an_interrupt_is_not_lost_when_a_child_dies_too() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, Uninterrupted():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGCHLD)
    assert isinstance(caught.value.__context__, RuntimeError)


@pytest.mark.usefixtures("child_handler")
def test_a_child_that_dies_while_a_step_begins_leaves_no_handler_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Primitives:
        getsignal = staticmethod(signal.getsignal)

        @staticmethod
        def signal(number: int, handler: signal.Handlers) -> None:
            if number == signal.SIGCHLD and handler is not fail:
                signal.raise_signal(signal.SIGCHLD)
            signal.signal(number, handler)

    monkeypatch.setattr(uninterrupted, "_signal", Primitives)
    with pytest.raises(RuntimeError, match="a worker died"), Uninterrupted():
        pytest.fail("it was heard of before")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
