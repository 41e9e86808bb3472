"""The command line: `aiscache COMMAND`, one file per command.

Each command's module imports what it needs when it runs, so that help costs no import of torch, numpy or the SDK. Exit
codes: 0 done, 1 failed or partly failed, 2 wrong usage, 130 ended by Ctrl-C.
"""

from aiscache.cli.program import main

__all__ = ["main"]
