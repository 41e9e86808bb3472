"""Shards that are compressed tar archives: gzip, bzip2, xz, and zstandard where Python has it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from aiscache.datasets.tar_members import is_tar
from aiscache.errors import ShardError
from aiscache.view import View, own_view

_PIECE_BYTES = 1 << 20


def _open_zstandard(file: Any) -> Any:
    try:
        return import_module("compression.zstd").open(file)  # Python 3.14
    except ImportError:
        return import_module("zstandard").open(file)


_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstandard,
}


def uncompressed(view: View, *, shard: str) -> View:
    """Return a shard as a plain archive: the view itself, or what it decompresses to, in this process's own memory.

    What it is is told by its first bytes, not by its name. ShardError for what is neither tar nor compressed, and
    where the compressed data is damaged or cut off: its offset is that in the uncompressed bytes.
    """
    if is_tar(view):
        return view
    head = bytes(view[:6])
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            return own_view(_decompress(view, opener, shard))
    if len(view):
        what = f"shard {shard} is no tar archive, at offset 0: it begins with {head!r}"
    else:
        what = f"shard {shard} is no tar archive, at offset 0: it is empty"
    raise ShardError(what, shard=shard, offset=0)


def _decompress(view: View, opener: Callable[[Any], Any], shard: str) -> memoryview:
    plain = io.BytesIO()
    try:
        with opener(view.file()) as file:
            while piece := file.read(_PIECE_BYTES):
                plain.write(piece)
    except ImportError as error:
        raise ShardError(f"shard {shard} is compressed with zstandard: pip install zstandard", shard=shard) from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        at = plain.tell()
        raise ShardError(
            f"shard {shard} cannot be decompressed ({error}), at offset {at}", shard=shard, offset=at
        ) from error
    return plain.getbuffer()
