"""Stateful models, run for a number of steps: `Model` and `run_model`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import ClassVar

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

MILLION = int(os.environ.get("MODEL_STEPS", "1000000"))
"""How many steps the tests marked `stress` make."""

_SEED = os.environ.get("MODEL_SEED")
_STEPS_EACH = 100
_EXAMPLES = 100


class Model(RuleBasedStateMachine):
    """A machine that counts its steps, over all instances."""

    steps: ClassVar[int] = 0

    @invariant()
    def count_the_step(self) -> None:
        Model.steps += 1


def run_model(make: Callable[[], Model], *, steps: int) -> None:
    """Make at least so many random steps, in runs of at most 100 from a new machine each.

    A hundred runs have a seed, which is told. With MODEL_SEED the first has this one, so that it is gone through again.
    """
    Model.steps = 0
    number = random.SystemRandom().getrandbits(32) if _SEED is None else int(_SEED)
    while Model.steps < steps:
        print(f"seed {number}", flush=True)
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            seed(number)(make),
            settings=settings(
                max_examples=min(_EXAMPLES, -(-(steps - Model.steps) // _STEPS_EACH)),
                stateful_step_count=_STEPS_EACH,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        print(f"{Model.steps:,} steps", flush=True)
        number += 1
