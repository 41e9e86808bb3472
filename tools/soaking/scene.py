"""`Scene`: what all roles share: a seeded chance, a cache, listings, and what was seen, told to the conductor.

What is told is one JSON line for each act: how long it took, how many reads and bytes, which errors, what was wrong.
"""

from __future__ import annotations

import json
import random
import socket
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiscache import AISMapDataset, Cache
from aiscache.errors import ObjectChangedError, OriginError
from aiscache.keys import ObjectRef
from tools.soaking.job import Job
from tools.soaking.ledger import Ledger
from tools.soaking.moments import Moments
from tools.soaking.objects import BUCKET, content

KILLED_WORKER = "DataLoader worker"  # how torch's error of a worker that was killed begins


class Scene:
    """The far side of one participant."""

    def __init__(self, job: Job, pipe: socket.socket) -> None:
        self.job = job
        self.chance = random.Random(job.seed)
        self.ledger = Ledger(Path(job.ledger))
        self._moments = Moments(Path(job.moments))
        self._pipe = pipe
        self._forget()

    def _forget(self) -> None:
        self.reads = self.bytes = 0
        self.slowest: tuple[float, float] = 0.0, 0.0  # seconds, and when it ended
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.extra: dict[str, Any] = {}

    # ---- acts

    @contextmanager
    def act(self, kind: str) -> Iterator[None]:
        """Do something, and tell of it; an error that may be is counted, one that may not is told as wrong."""
        began = time.monotonic()
        self._moments.begin(self.job.slot)
        try:
            yield
        except OriginError as error:
            self.errors[type(error).__name__] += 1
        except RuntimeError as error:
            if str(error).startswith(KILLED_WORKER):
                self.errors["a DataLoader worker was killed"] += 1
            else:
                self.unforeseen(error)
        except Exception as error:
            self.unforeseen(error)
        finally:
            self._moments.end(self.job.slot)
            self._tell(kind, time.monotonic() - began)

    def step(self) -> None:
        """Begin to wait for the next thing, in an act that takes long as a whole."""
        self._moments.begin(self.job.slot)

    def note_workers(self, *, end_with_trainer: bool) -> None:
        self._moments.note_workers(self.job.slot, end_with_trainer=end_with_trainer)

    def unforeseen(self, error: BaseException) -> None:
        traceback.print_exception(error)
        place = traceback.extract_tb(error.__traceback__)[-1]
        self.wrong.append(f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")

    def _tell(self, kind: str, seconds: float) -> None:
        told = {
            "act": kind, "seconds": seconds, "reads": self.reads, "bytes": self.bytes, "slowest": self.slowest,
            "errors": self.errors, "wrong": self.wrong, **self.extra,
        }  # fmt: skip
        self._forget()
        self._pipe.sendall(json.dumps(told).encode() + b"\n")

    # ---- what is promised

    def check(self, name: str, serial: int, data: Any) -> None:
        """Hold what was read against the version that was asked for."""
        self.reads += 1
        self.bytes += len(data)
        if bytes(data) != content(name, serial):
            self.wrong.append(f"wrong bytes for version {serial} of {name} ({len(data)} of them)")

    def check_error(self, name: str, serial: int, error: str) -> None:
        """Count the error of a read; one that says that the object changed must be right about it."""
        self.errors[error] += 1
        if error == ObjectChangedError.__name__ and not self.ledger.was_overwritten(name, serial):
            self.wrong.append(f"{error} for version {serial} of {name}, which is the one in place")

    def took(self, seconds: float) -> None:
        """Note how long a read took that ends now."""
        self.slowest = max(self.slowest, (seconds, time.monotonic()))

    # ---- means

    def cache(self) -> Cache:
        verify = self.chance.choice(["fill", "fill", "fill", "read"])
        return Cache(self.job.cache, capacity=self.job.capacity, memory=self.job.memory, verify=verify)

    def listed(self, kind: type[AISMapDataset], cache: Cache, *, prefix: str = "", **options: Any) -> Any:
        """Return a dataset; its listing names what the cluster has now, or had since it was asked."""
        since = self.ledger.snapshot()
        bucket = self.job.client().bucket(BUCKET)
        dataset = kind(bucket, {bucket: prefix} if prefix else None, cache=cache, **options)
        if not options.get("max_listing_age_s"):
            versions = ((ref.name, serial_of(ref)) for ref in dataset.manifest)
            self.wrong += self.ledger.outdated(versions, since=since)
        return dataset


def serial_of(ref: ObjectRef) -> int:
    return int(ref.version)
