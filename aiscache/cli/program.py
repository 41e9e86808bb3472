"""The program around the commands: arguments in, exit code out, errors in one line."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType

from aiscache import __version__
from aiscache.cli import clear, demo, evict, ls, path, repair, report, serve, stats, verify, warm
from aiscache.cli.colour import paint
from aiscache.cli.interrupts import Interrupt, interrupt_once
from aiscache.errors import AiscacheError, ConfigError

COMMANDS: tuple[ModuleType, ...] = (warm, ls, stats, report, evict, clear, verify, repair, path, serve, demo)
_WITH_TEMPORARY_CHILDREN = (demo, serve)  # their children need no time to end well

EXIT_FAILED, EXIT_USAGE = 1, 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run`, a function from arguments to exit code."""
    parser = argparse.ArgumentParser(
        prog="aiscache",
        description="A cache for PyTorch datasets of NVIDIA AIStore, shared by all processes of a machine.",
        epilog="`aiscache COMMAND --help` tells more. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"aiscache {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show where an error came from")
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        summary = (command.__doc__ or "").partition(": ")[2].splitlines()[0]
        summary = summary[0].upper() + summary[1:]
        subparser = commands.add_parser(
            command.__name__.rpartition(".")[2], parents=[everywhere], help=summary.rstrip("."), description=summary
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, kill_children=command in _WITH_TEMPORARY_CHILDREN)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; `argv` are the arguments without the program's name. Returns the exit code, raises nothing."""
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as ended:  # help, version, or wrong usage: argparse has printed it
        return ended.code if isinstance(ended.code, int) else EXIT_USAGE
    if not hasattr(arguments, "run"):
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING, format="aiscache: %(levelname)s: %(message)s"
    )
    with _plain_warnings(), interrupt_once(kill_children=arguments.kill_children) as interrupt:
        code = _run(arguments, interrupt)
    if interrupt.signal and argv is None:
        _end_now(code)
    return code


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings as the program's own words, without the place in the code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: (
        f"aiscache: {paint('warning:', 'yellow', sys.stderr)} {message}\n"
    )
    try:
        yield
    finally:
        warnings.formatwarning = before


def _run(arguments: argparse.Namespace, interrupt: Interrupt) -> int:
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return interrupt.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:
        if interrupt.signal:  # an import, or C code, turned the interrupt into an error of its own
            return interrupt.exit_code
        return _failed(error, verbose=arguments.verbose)


def _end_now(code: int) -> None:
    """End the process after Ctrl-C: all is tidied up, and torch takes up to a second to end in good order."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _failed(error: Exception, *, verbose: bool) -> int:
    """Say what went wrong: in one line where it is foreseen, with the traceback where it is a bug of ours."""
    if verbose or not isinstance(error, AiscacheError | OSError):
        traceback.print_exception(error)
    else:
        print(f"aiscache: {paint('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def _reader_gone() -> int:
    """End quietly when what reads our output has ended, as in `aiscache stats | head -1`."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED
