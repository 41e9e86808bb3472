"""A program that reads objects through a cache while its machine has less of something than it would need.

`run(statements, path)` runs Python in a process of its own, where `read()` tells how many were read right, and what was
said of the others. It has no torch. `run_each` runs the statements once for each of several cases, each in a process
that is forked when all is imported, so that a case costs milliseconds.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from aiscache.devserver import DevCluster
from aiscache.keys import ObjectRef
from aiscache.origin import BucketName, Origin, OriginSettings, RetryPolicy

_QUICK = RetryPolicy(status_retries=1, backoff_s=0.02, network_attempts=2, network_waits_s=((0.01, 0.02),))
_ROOT = Path(__file__).parents[1]

_MARK = "=== end of case"
_PROGRAM = (
    f"MARK = {_MARK!r}\n"
    + """
import logging, os, pickle, resource, sys, time, traceback, warnings
import xxhash
from aiscache.cache import Cache
from aiscache.errors import AiscacheError, OriginError
from aiscache.origin import Origin
logging.basicConfig(format="%(levelname)s %(message)s")
settings, refs, sums, cases, statements = pickle.load(sys.stdin.buffer)
origin = Origin.of(settings)
origin.cluster_map()

def read(some=None, at_a_time=5):
    right, refused = 0, []
    some = refs if some is None else some
    for start in range(0, len(some), at_a_time):
        batch = some[start : start + at_a_time]
        try:
            views = cache.read_many(batch)
        except OriginError as error:
            refused.append(str(error))
            continue
        for ref, view in zip(batch, views):
            if xxhash.xxh3_64_intdigest(bytes(view)) != sums[ref.name]:
                print("WRONG BYTES OF", ref.name, flush=True)
            right += 1
    return right, refused

for path, case in cases:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            exec(statements)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(MARK, status, flush=True)
    print(MARK, file=sys.stderr, flush=True)
"""
)


@dataclass(frozen=True)
class Told:
    """What a program printed; its exit status and what it said on stderr."""

    lines: list[str]
    status: int
    errors: str

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.errors.splitlines() if "WARNING" in line or "Warning: " in line]


class Reading:
    """Objects of a bucket, for programs that read them."""

    def __init__(self, cluster: DevCluster, bucket: str, *, count: int, size: int) -> None:
        made = cluster.generate(bucket, count, size)
        self.settings = OriginSettings(endpoint=cluster.endpoint, connect_timeout_s=1, read_timeout_s=2, retry=_QUICK)
        self.origin = Origin.of(self.settings)
        self.refs = [
            ObjectRef(
                cluster=self.origin.uuid, provider="ais", bucket=bucket, name=entry.n, size=entry.s,
                checksum=entry.cs, version=entry.v,
            )
            for page in self.origin.list_pages(BucketName(name=bucket))
            for entry in page
        ]  # fmt: skip
        self.bodies = {name: made.content(name) for name in made}
        self.sums = {name: xxhash.xxh3_64_intdigest(body) for name, body in self.bodies.items()}

    def is_right(self, refs: Sequence[ObjectRef], views: Sequence[Any]) -> bool:
        return all(bytes(view) == self.bodies[ref.name] for ref, view in zip(refs, views, strict=True))

    def run(self, statements: str, path: Path | None, *, case: Any = None, around: Sequence[str] = ()) -> Told:
        """Run statements with `path` and `case`; `around` is a command that runs the program."""
        return self.run_each(statements, [(path, case)], around=around)[0]

    def run_each(
        self, statements: str, cases: Sequence[tuple[Path | None, Any]], *, around: Sequence[str] = ()
    ) -> list[Told]:
        """Run statements for each of several pairs of `path` and `case`."""
        plain = [(path and str(path), case) for path, case in cases]
        done = subprocess.run(
            [*around, sys.executable, "-W", "always", "-c", _PROGRAM],
            input=pickle.dumps((self.settings, self.refs, self.sums, plain, statements)),
            capture_output=True, timeout=100, cwd=_ROOT,
        )  # fmt: skip
        errors = done.stderr.decode().split(_MARK + "\n")
        assert done.returncode == 0, errors[-1]
        told = []
        lines: list[str] = []
        for line in done.stdout.decode().splitlines():
            if line.startswith(_MARK):
                told.append(Told(lines, int(line.removeprefix(_MARK)), errors[len(told)]))
                lines = []
            else:
                lines.append(line)
        return told
