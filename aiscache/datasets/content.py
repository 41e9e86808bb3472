"""What a sample's content is handed over as: `content="bytes"` or `content="view"`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data._utils.collate import default_collate_fn_map

from aiscache.datasets.reference import content_bytes
from aiscache.errors import ConfigError
from aiscache.view import View


def _as_is(view: View) -> View:
    return view


_KINDS: dict[str, Callable[[View], Any]] = {"bytes": content_bytes, "view": _as_is}


def content_kind(content: str) -> str:
    """Return a `content=` argument, ConfigError if there is no such kind."""
    if content not in _KINDS:
        raise ConfigError(f"content={content!r} must be one of {', '.join(map(repr, _KINDS))}")
    return content


def as_content(kind: str) -> Callable[[View], Any]:
    """Return what turns a view into the content of that kind."""
    return _KINDS[kind]


def collate_as_list(batch: list[Any], **_: Any) -> list[Any]:
    """Keep a batch's views as a list: objects have different lengths, so there is nothing to stack."""
    return batch


default_collate_fn_map.setdefault(View, collate_as_list)
