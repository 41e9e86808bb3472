"""The store: bytes of objects in segments, found through an LMDB index, shared by all processes of a machine."""

from aiscache.store.directory import Directory
from aiscache.store.index import DISK, MEMORY, STAGING
from aiscache.store.reclaim import Swept
from aiscache.store.record import Record
from aiscache.store.staging import Staging
from aiscache.store.store import Store
from aiscache.store.writer import Reservation

__all__ = ["DISK", "MEMORY", "STAGING", "Directory", "Record", "Reservation", "Staging", "Store", "Swept"]
