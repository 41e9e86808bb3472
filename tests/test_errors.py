"""Every error crosses processes with what it says, and survives torch's way of raising it again."""

from __future__ import annotations

import pickle

import pytest

from aiscache import errors


def all_errors() -> list[type[errors.AiscacheError]]:
    found, todo = [], [errors.AiscacheError]
    while todo:
        one = todo.pop()
        if one.__module__ == errors.__name__:
            found.append(one)
        todo += one.__subclasses__()
    return found


def test_the_drawing_shows_all_of_them() -> None:
    drawing = errors.__doc__ or ""
    assert all(one.__name__ in drawing for one in all_errors())
    assert len(all_errors()) == len({line for line in drawing.split() if line.endswith("Error")} - BUILTIN)


BUILTIN = {"(ValueError)", "(LookupError)", "(ConnectionError)", "(TimeoutError)"}


@pytest.mark.parametrize("kind", all_errors())
def test_pickled_with_its_details(kind: type[errors.AiscacheError]) -> None:
    error = kind("what and what to do", status=404, url="ais://b/n")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.args == ("what and what to do",)
    assert str(again) == "what and what to do"
    assert (again.status, again.url) == (404, "ais://b/n")


@pytest.mark.parametrize("kind", all_errors())
def test_raised_again_by_a_data_loader(kind: type[errors.AiscacheError]) -> None:
    from torch._utils import ExceptionWrapper

    try:
        raise kind("the message", status=1)
    except kind:
        wrapped = ExceptionWrapper(where="in worker 0")
    with pytest.raises(kind, match=r"Caught .* in worker 0") as caught:
        pickle.loads(pickle.dumps(wrapped)).reraise()
    assert "the message" in str(caught.value)


def test_each_is_also_what_python_calls_it() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ObjectNotFoundError, LookupError)
    assert issubclass(errors.UnreachableError, ConnectionError)
    assert issubclass(errors.OriginTimeoutError, TimeoutError)
