"""Sizes, the environment, and messages that say what is accepted."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiscache.errors import ConfigError
from aiscache.settings import CacheSettings, env, env_flag, format_size, parse_size


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AISCACHE_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        (10**15, 10**15),
        ("1", 1),
        ("123 ", 123),
        ("200GB", 200 * 1000**3),
        ("200gb", 200 * 1000**3),
        ("200 G", 200 * 1000**3),
        (" 1.5GiB ", 3 * 1024**3 // 2),
        ("1.5 gib", 3 * 1024**3 // 2),
        ("64K", 64_000),
        ("64KiB", 65_536),
        ("1Mi", 1 << 20),
        ("2TB", 2 * 10**12),
        ("1PiB", 1 << 50),
        ("100B", 100),
        ("0.5kB", 500),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(value: int | str, size: int) -> None:
    assert parse_size(value, name="capacity") == size


@pytest.mark.parametrize(
    "value", ["", "GB", "-1", "1,5GB", "1e9", "ten", "1EB", "1 G B", "1.GB", True, 1.5, None, "٣GB"]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(value, name="capacity")  # type: ignore[arg-type]
    assert str(caught.value) == (
        f'capacity={value!r} is not a size; write bytes or a number with a unit: "200GB", "1.5GiB"'
    )


@pytest.mark.parametrize("value", [0, -5, "0", "0GB", "0.0001"])
def test_what_is_no_positive_size(value: int | str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(value, name="AISCACHE_CAPACITY")
    assert str(caught.value) == f"AISCACHE_CAPACITY={value!r} must be more than 0 bytes"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000_000, "1.5 GB"), (2e12, "2.0 TB"),
        (3_000_000_000_000_000, "3.0 PB"), (-1500, "-1.5 kB"),
    ],
)  # fmt: skip
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(1, 10**16))
def test_a_size_for_people_can_be_read_again(size: int) -> None:
    assert parse_size(format_size(size), name="x") == pytest.approx(size, rel=0.06)


def test_empty_variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env("AISCACHE_DIR") is None
    monkeypatch.setenv("AISCACHE_DIR", "")
    assert env("AISCACHE_DIR") is None
    monkeypatch.setenv("AISCACHE_DIR", "/x")
    assert env("AISCACHE_DIR") == "/x"


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("1", True),
        ("TRUE", True),
        (" yes ", True),
        ("on", True),
        ("0", False),
        ("no", False),
        ("Off", False),
        ("", False),
    ],
)
def test_flags(monkeypatch: pytest.MonkeyPatch, text: str, on: bool) -> None:
    assert env_flag("AISCACHE_DISABLE") is False
    monkeypatch.setenv("AISCACHE_DISABLE", text)
    assert env_flag("AISCACHE_DISABLE") is on


def test_a_flag_that_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISCACHE_DISABLE", "maybe")
    with pytest.raises(ConfigError) as caught:
        env_flag("AISCACHE_DISABLE")
    assert str(caught.value) == (
        "AISCACHE_DISABLE='maybe' is neither on (1, true, yes, on) nor off (0, false, no, off)"
    )


def test_argument_before_environment_before_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CacheSettings.resolve() == CacheSettings(path=None, capacity_bytes=None, memory_bytes=None, verify="fill")
    monkeypatch.setenv("AISCACHE_DIR", "/from/env")
    monkeypatch.setenv("AISCACHE_CAPACITY", "1GB")
    monkeypatch.setenv("AISCACHE_MEMORY", "1MB")
    assert CacheSettings.resolve() == CacheSettings(path="/from/env", capacity_bytes=10**9, memory_bytes=10**6)
    assert CacheSettings.resolve("/mine", capacity=5, memory="6", verify="read") == CacheSettings(
        path="/mine", capacity_bytes=5, memory_bytes=6, verify="read"
    )


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISCACHE_CAPACITY", "lots")
    with pytest.raises(ConfigError, match=r"^AISCACHE_CAPACITY='lots' is not a size"):
        CacheSettings.resolve()
    assert CacheSettings.resolve(capacity="1GB").capacity_bytes == 10**9, (
        "what is given as an argument is not looked up"
    )


def test_a_bad_verify() -> None:
    with pytest.raises(ConfigError) as caught:
        CacheSettings.resolve(verify="always")
    assert str(caught.value) == (
        'verify=\'always\' must be "fill" (when an object is fetched) or "read" (each read too)'
    )


def test_paths_are_absolute_and_any_kind_of_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert CacheSettings.resolve("a/../b").path == str(tmp_path / "b")
    assert CacheSettings.resolve(Path("b")).path == str(tmp_path / "b")
    assert CacheSettings.resolve("~/cache").path == "/home/me/cache"


def test_settings_cross_processes() -> None:
    settings = CacheSettings.resolve("/x", capacity="1GB")
    assert pickle.loads(pickle.dumps(settings)) == settings
