"""Plain files on tmpfs: no cluster, no cache; what a user has who copied everything beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Place, bucket


def fill(place: Place, folder: str = "files") -> None:
    """Copy the bucket into files."""
    directory = Path(place.directory, folder)
    directory.mkdir(parents=True)
    source = bucket(place)
    for entry in source.list_all_objects():
        Path(directory, entry.name).write_bytes(source.object(entry.name).get_reader().read_all())


class Files:
    """A map-style dataset of the files in a directory."""

    def __init__(self, place: Place) -> None:
        self.paths = sorted(str(path) for path in Path(place.directory, "files").iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        with open(self.paths[index], "rb") as file:
            return self.paths[index], file.read()


CONTENDERS = {"files": Contender("plain files on tmpfs, no cluster", Files, fill=fill)}
