"""What a sample's content is handed over as: `content="bytes"` or `content="view"`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data._utils.collate import default_collate_fn_map

from aiscache.datasets.reference import content_bytes, contents_bytes
from aiscache.errors import ConfigError
from aiscache.view import View


def _as_is(view: View) -> View:
    return view


def _all_as_are(views: list[View]) -> list[View]:
    return views


_KINDS: dict[str, tuple[Callable[[View], Any], Callable[[list[View]], list[Any]]]] = {
    "bytes": (content_bytes, contents_bytes),
    "view": (_as_is, _all_as_are),
}


def content_kind(content: str) -> str:
    """Return a `content=` argument, ConfigError if there is no such kind."""
    if content not in _KINDS:
        raise ConfigError(f"content={content!r} must be one of {', '.join(map(repr, _KINDS))}")
    return content


def as_content(kind: str) -> Callable[[View], Any]:
    """Return what turns a view into the content of that kind."""
    return _KINDS[kind][0]


def as_contents(kind: str) -> Callable[[list[View]], list[Any]]:
    """Return what turns many views into contents of that kind."""
    return _KINDS[kind][1]


def collate_as_list(batch: list[Any], **_: Any) -> list[Any]:
    """Keep a batch's views as a list: objects have different lengths, so there is nothing to stack."""
    return batch


default_collate_fn_map.setdefault(View, collate_as_list)
