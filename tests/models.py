"""Stateful models, run for a number of steps: `Model` and `run_model`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

MILLION = int(os.environ.get("MODEL_STEPS", "1000000"))
"""How many steps the tests marked `stress` make."""

_STEPS_EACH = 50
_EXAMPLES = 100


class Model(RuleBasedStateMachine):
    """A machine that counts its steps, over all instances."""

    steps: ClassVar[int] = 0

    @invariant()
    def count_the_step(self) -> None:
        Model.steps += 1


def run_model(make: Callable[[], Model], *, steps: int) -> None:
    """Make at least so many random steps, in runs of at most 50 from a new machine each."""
    Model.steps = 0
    while Model.steps < steps:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            make,
            settings=settings(
                max_examples=min(_EXAMPLES, -(-(steps - Model.steps) // _STEPS_EACH)),
                stateful_step_count=_STEPS_EACH,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        print(f"{Model.steps:,} steps", flush=True)
