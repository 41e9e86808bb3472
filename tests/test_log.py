"""AISCACHE_LOG_LEVEL, as a user's program meets it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import logging
{before}
import aiscache
logger = logging.getLogger("aiscache")
logger.debug("a detail")
logger.warning("a warning")
"""


def run(level: str | None, before: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "AISCACHE_LOG_LEVEL"}
    if level is not None:
        environment["AISCACHE_LOG_LEVEL"] = level
    code = PROGRAM.format(before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("level", "details"), [(None, False), ("", False), ("warning", False), (" DEBUG ", True)])
def test_the_level_is_that_of_the_environment(level: str | None, details: bool) -> None:
    done = run(level)
    assert done.returncode == 0, done.stderr
    assert "a warning" in done.stderr
    assert ("a detail" in done.stderr) is details


def test_a_program_that_has_set_up_logging_gets_each_message_once() -> None:
    done = run("DEBUG", before="logging.basicConfig(level=logging.INFO, format='mine: %(message)s')")
    assert done.stderr.splitlines() == ["mine: a detail", "mine: a warning"]


def test_a_level_that_is_none_is_told() -> None:
    done = run("loud")
    assert done.returncode == 1
    assert "AISCACHE_LOG_LEVEL='loud' must be one of DEBUG, INFO" in done.stderr
