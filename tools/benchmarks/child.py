"""The process that is measured: `python -m benchmarks.child JSON` runs one job and prints its figures as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from benchmarks.contenders import Contender, Place, contenders


def main() -> None:
    module, job, contender, place, options = json.loads(sys.argv[1])
    run = getattr(importlib.import_module(f"benchmarks.jobs.{module}"), job)
    chosen: Contender | None = contenders()[contender] if contender else None
    arguments: list[Any] = [Place(**place)] if chosen is None else [chosen, Place(**place)]
    print("\n" + json.dumps(run(*arguments, **options)))


if __name__ == "__main__":
    main()
