"""Freed batches stay with the process: the next one costs no page faults. Seen from the kernel's counts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's to decide")

PROGRAM = """
import resource, sys
from aiscache.datasets.heap import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident_kib():
    return int(open("/proc/self/statm").read().split()[1]) * 4

data = bytes(range(256)) * 400
before = resident_kib()
if sys.argv[1] == "keep":
    keep_freed_memory()
assert resident_kib() - before < 1000  # nothing of it was touched
for _ in range(3):
    batch = [bytearray(data) for _ in range(64)]
    del batch
before = faults()
for _ in range(10):
    batch = [bytearray(data) for _ in range(64)]
    del batch
print(faults() - before)
"""


def faults(*arguments: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return int(done.stdout)


def test_the_next_batch_costs_no_page_faults() -> None:
    assert faults("do not") > 10 * 1000
    assert faults("keep") < 1000


def test_limits_that_the_user_set_stay() -> None:
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="100000") > 10 * 1000
