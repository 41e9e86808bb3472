"""The store: bytes of objects in segments, found through an LMDB index, shared by all processes of a machine.

What is asked for is imported then: who only looks at a directory or an index waits for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiscache.store.directory import Directory
    from aiscache.store.index import DISK, MEMORY, STAGING
    from aiscache.store.reclaim import Swept
    from aiscache.store.record import Record
    from aiscache.store.staging import Staging
    from aiscache.store.store import Store
    from aiscache.store.writer import Reservation

__all__ = ["DISK", "MEMORY", "STAGING", "Directory", "Record", "Reservation", "Staging", "Store", "Swept"]

_HOME = {
    "DISK": "index",
    "Directory": "directory",
    "MEMORY": "index",
    "Record": "record",
    "Reservation": "writer",
    "STAGING": "index",
    "Staging": "staging",
    "Store": "store",
    "Swept": "reclaim",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aiscache.store' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"aiscache.store.{_HOME[name]}"), name)
    return value
