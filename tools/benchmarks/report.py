"""What was measured, as a file of JSON, and the Markdown and pictures that are made of such files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.environment import told
from benchmarks.tables import Table


def write(path: str, tables: Sequence[Table], environment: dict[str, Any]) -> None:
    """Write all figures of all repeats, and where they were measured."""
    found = {"environment": environment, "tables": [asdict(table) for table in tables]}
    Path(path).write_text(json.dumps(found, indent=1) + "\n")


def read(path: str) -> tuple[dict[str, Any], list[Table]]:
    """Return what `write` was given."""
    found = json.loads(Path(path).read_text())
    return found["environment"], [Table(**table) for table in found["tables"]]


def markdown(paths: Sequence[str]) -> str:
    """Return a page of all tables, a section for each suite; files that were measured elsewhere say so again."""
    blocks, before = [], ""
    for path in paths:
        environment, tables = read(path)
        now = f"{told(environment)}. {environment['how']}"
        if now != before:
            blocks.append(f"Measured on {now}")
        before = now
        for suite, group in groupby(tables, key=lambda table: table.suite):
            blocks.append(f"## `./tools/bench --only {suite}`")
            for table in group:
                blocks += [f"{table.title}:", table.markdown()]
    return "\n\n".join(blocks)
