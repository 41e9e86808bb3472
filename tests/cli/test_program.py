"""Help, wrong usage and errors: quick, and clear."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aiscache.cli import main
from tests.cli.program import environment, run

HEAVY = {"torch", "numpy", "aistore", "lmdb", "xxhash", "pycurl", "msgspec", "psutil"}


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["serve", "--help"], ["stats", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from aiscache.cli import main; main({arguments}); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.startswith("usage: aiscache")
    assert not HEAVY & {name.strip("[]',\n").partition(".")[0] for name in done.stderr.split()}


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n    {command} " in done.stdout for command in ("demo", "serve", "stats", "clear", "path"))


def test_the_console_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("aiscache")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout[:9]) == (0, "aiscache ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["demo", "--objects", "0"], "--objects: 0 is too small, must be at least 1"),
        (["demo", "--objects", "many"], "--objects: 'many' is not a whole number"),
        (["demo", "--size", "3X"], "is not a size"),
        (["demo", "--workers", "-1"], "must be at least 0"),
        (["serve"], "DIR"),
        (["serve", "/no/such"], "'/no/such' does not exist"),
        (["serve", "/etc/passwd"], "'/etc/passwd' is not a directory"),
        (["serve", "/tmp", "--port", "70000"], "must be at most 65535"),
        (["serve", "/tmp", "--fault", "*,state=503"], "must be one of"),
        (["serve", "/tmp", "--bucket", "a b"], "'a b' must be"),
        (["stats", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_wrong_usage_is_told_on_stderr_with_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert told in errors


def test_a_bad_setting_is_wrong_usage() -> None:
    done = run("path", AISCACHE_CAPACITY="lots")
    assert done.returncode == 2
    assert done.stderr.startswith("aiscache: error: AISCACHE_CAPACITY='lots' is not a size")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-v", "stats"], ["stats", "-v"], ["stats", "--verbose"]])
def test_verbose_shows_where_an_error_came_from(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--cache", "/no/such"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_ends_early_is_no_error() -> None:
    pipe = f"'{sys.executable}' -m aiscache stats --json | true"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, env=environment())
    assert done.stderr == ""
