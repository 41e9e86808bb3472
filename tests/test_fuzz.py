"""Readers of a cache's files, and any bytes: no crash, no read outside, no error but the promised one."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import fuzzing
from tests.forks import ForkServer
from tests.healing import Patient, fill

FLIPS = int(os.environ.get("DAMAGES", "25"))


@pytest.fixture(scope="module", autouse=True)
def no_scratch_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(fuzzing.scratch())
    fuzzing.scratch.cache_clear()


@pytest.mark.parametrize("name", [name for name in fuzzing.TARGETS if name != "index"])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_reader_of_damaged_bytes(name: str, data: st.DataObject) -> None:
    good = fuzzing.seed(name)
    fuzzing.TARGETS[name](data.draw(st.binary(max_size=600)))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bad) - 1))
        field = data.draw(
            st.one_of(st.binary(min_size=1, max_size=2), st.sampled_from([b"\xff" * 8, bytes(8), bytes(64)]))
        )
        bad[at : at + len(field)] = field[: len(bad) - at]
    if data.draw(st.booleans()):
        del bad[data.draw(st.integers(0, len(bad) - 1)) :]
    fuzzing.TARGETS[name](bytes(bad))


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_a_reader_takes_what_is_good(name: str) -> None:
    fuzzing.TARGETS[name](fuzzing.seed(name))


@settings(max_examples=FLIPS, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12), st.sampled_from([1, 2, 8, 40]))
def test_an_index_with_flipped_bits_neither_crashes_nor_lies(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer, chosen: random.Random, flips: int, size: int
) -> None:
    filled = tmp_path_factory.getbasetemp() / "to-flip"
    if not filled.exists():
        fill(filled)
    copy = filled.with_name("flipped")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(filled, copy)
    flip(copy / "index" / "data.mdb", chosen, flips=flips, size=size)
    with Patient(copy, verify="read") as patient:
        patient.ask("heal")
        assert patient.wait() == 0


def flip(file: Path, chosen: random.Random, *, flips: int, size: int) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(flips):
        at = chosen.randrange(len(data) - size)
        data[at : at + size] = chosen.choice([chosen.randbytes(size), bytes(size), b"\xff" * size])
    file.write_bytes(bytes(data))
