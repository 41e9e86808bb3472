"""`aiscache demo`: train a small model from a cluster on this machine, through the cache and without it."""

from __future__ import annotations

import argparse

from aiscache.cli.arguments import add_json, size_bytes, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    count = whole_number(least=1)
    parser.add_argument("--objects", metavar="N", type=count, default=2000, help="default: %(default)s")
    parser.add_argument(
        "--size", metavar="SIZE", type=size_bytes, default="100KiB", help="of each object (default: %(default)s)"
    )
    parser.add_argument("--epochs", metavar="N", type=count, default=3, help="default: %(default)s")
    parser.add_argument("--batch-size", metavar="N", type=count, default=64, help="default: %(default)s")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=whole_number(least=0),
        default=2,
        help="processes of the DataLoader (default: %(default)s)",
    )
    parser.add_argument("--no-compare", action="store_true", help="leave out the same work with aistore.pytorch")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, measure and print; everything it started or stored is gone afterwards, also after Ctrl-C."""
    from aiscache.cli.demo.show import Show

    return Show(arguments).run()
