"""Shards for tests."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from typing import Any


def shard(files: Mapping[str, bytes], **options: Any) -> bytes:
    """Return a tar archive of these files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=options.pop("mode", "w"), **options) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def shards(count: int, samples: int = 5) -> dict[str, bytes]:
    """Return shards by object name: an image and a class per sample, sizes around what crosses by reference."""
    made = {}
    for number in range(count):
        files = {}
        for sample in range(samples + number % 2):
            files[f"{number:03}/{sample:04}.cls"] = b"%d" % sample
            files[f"{number:03}/{sample:04}.jpg"] = os.urandom(500 * (sample + 1))
        made[f"train-{number:03}.tar"] = shard(files)
    return made


def samples_of(tar: bytes) -> list[tuple[str, dict[str, bytes]]]:
    """Return the samples of an archive as webdataset would group them: (basename, contents by extension)."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for info in archive:
            file = archive.extractfile(info)
            if file is not None and "." in info.name:
                stem, _, extension = info.name.rpartition(".")
                found.setdefault(stem, {})[extension] = file.read()
    return [(stem.rpartition("/")[2], contents) for stem, contents in found.items()]
