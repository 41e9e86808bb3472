"""`aiscache path`: print the directory that the cache is, or would be, in."""

from __future__ import annotations

import argparse
import sys

from aiscache.cli.arguments import add_cache
from aiscache.cli.choice import choose
from aiscache.settings import env_flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_cache(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the path; nothing is made."""
    print(choose(arguments.cache).path)
    if env_flag("AISCACHE_DISABLE"):
        print("aiscache: AISCACHE_DISABLE is on: datasets read without a cache", file=sys.stderr)
    return 0
