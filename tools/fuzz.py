"""Fuzzes what reads the files of a cache, by coverage: `.venv/bin/python tools/fuzz.py "forged manifest"`.

Needs `pip install atheris`. The first argument is a target of `tests/fuzzing.py`, the others are libFuzzer's, such as
`-max_total_time=60`. What it finds is written to `crash-...` in the working directory.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["aiscache", "tests.fuzzing"]):
    from tests import fuzzing


def main() -> int:
    """Fuzz in a child, as libFuzzer ends its process without a chance to tidy up."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tempfile.tempdir:
        pid = os.fork()
        if pid == 0:
            fuzz(*sys.argv[1:])
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fuzz(name: str, *options: str) -> None:
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    (corpus / "good").write_bytes(fuzzing.seed(name))
    target = fuzzing.TARGETS[name]
    atheris.Setup([sys.argv[0], f"-max_len={2 * len(fuzzing.seed(name))}", *options, str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
