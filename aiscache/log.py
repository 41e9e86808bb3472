"""AISCACHE_LOG_LEVEL: the level of the logger `aiscache`, without a line of code.

Unset, logging is the program's own affair, as in any library. Set, the logger has this level, in all processes of a
program (workers and prefetchers have its environment), and writes to stderr where nobody has set up logging.
"""

from __future__ import annotations

import logging

from aiscache.errors import ConfigError

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_FORMAT = "%(asctime)s %(processName)s %(process)d aiscache %(levelname)s: %(message)s"


def set_level(level: str) -> None:
    """Give the logger a level by name; ConfigError if there is no such level."""
    name = level.strip().upper()
    if name not in _LEVELS:
        raise ConfigError(f"AISCACHE_LOG_LEVEL={level!r} must be one of {', '.join(_LEVELS)}")
    logger = logging.getLogger("aiscache")
    logger.setLevel(name)
    if not any(isinstance(handler, _Fallback) for handler in logger.handlers):
        handler = _Fallback()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)


class _Fallback(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr, as long as the program has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)
