"""`aiscache report`: make a page of what the cache noted of the last training runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from aiscache.cli.arguments import add_cache, whole_number
from aiscache.cli.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)
    parser.add_argument(
        "--out", metavar="FILE", default="aiscache-report.html", help="where to write it (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", metavar="N", type=whole_number(least=1), default=5, help="show the last N processes (default: 5)"
    )
    parser.add_argument("--open", action="store_true", help="show it in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Write one self-contained page; nothing in it is from elsewhere, no script runs."""
    from aiscache.cli.opening import looked_at, nothing_there
    from aiscache.cli.page import page
    from aiscache.store.runs import notes_in

    choice, look = looked_at(arguments.cache)
    if look is None:
        print(nothing_there(choice), file=sys.stderr)
        return 1
    notes = notes_in(str(choice.path / "runs"))
    out = Path(arguments.out)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        draft.write_text(page(choice.path, look, notes, most_runs=arguments.runs), encoding="utf-8")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    epochs, warmings = (sum(note.kind == kind for note in notes) for kind in ("epoch", "warm"))
    print(f"Wrote {out}: {counted(epochs, 'epoch')} and {counted(warmings, 'warming')} were noted in {choice.path}.")
    if not notes:
        print("Epochs are noted where aiscache.DataLoader or PrefetchSampler is used, warmings by aiscache warm.")
    if arguments.open:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    return 0
