"""The plan, as plain calls: no processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiscache.prefetch.plan import Outcome, Plan


def plan_of(sizes: list[int], *, window: int = 1000, chunk: int = 4, workers: int = 1, start: int = 0) -> Plan:
    plan = Plan(window_bytes=window, chunk=chunk, start=start)
    plan.extend(np.array(sizes, np.int64))
    for worker in range(workers):
        plan.join(worker)
    return plan


def test_workers_get_the_soonest_positions_in_chunks() -> None:
    plan = plan_of([1] * 100, workers=2)
    assert plan.assign() == [(0, [0, 1, 2, 3]), (1, [4, 5, 6, 7])]
    assert plan.assign() == [(0, [8, 9, 10, 11]), (1, [12, 13, 14, 15])]
    assert plan.assign() == []  # two chunks each
    for position in range(4):
        plan.settle(0, position, Outcome.KEPT)
    assert plan.assign() == [(0, [16, 17, 18, 19])]


def test_what_the_clock_has_passed_is_skipped() -> None:
    plan = plan_of([1] * 100)
    plan.move(50, consumed=0)
    assert plan.assign() == [(0, [50, 51, 52, 53])]
    plan.settle(0, 50, Outcome.FAILED)
    plan.move(54, consumed=0)
    assert plan.assign() == [(0, [54, 55, 56, 57])]


def test_what_is_not_for_the_pool_is_skipped() -> None:
    plan = plan_of([-1, 1, -1, -1, 1, -1])
    assert plan.assign() == [(0, [1, 4])]
    plan.settle(0, 1, Outcome.KEPT)
    plan.settle(0, 4, Outcome.KEPT)
    assert plan.done()


def test_kept_objects_do_not_fill_the_window() -> None:
    plan = plan_of([300] * 20)
    for position in range(20):
        plan.assign()
        plan.settle(0, position, Outcome.KEPT)
    assert plan.done()
    assert plan.ahead() == (20, 6000)


def test_without_a_clock_nothing_is_given_out_twice() -> None:
    plan = Plan(window_bytes=1000, chunk=4, clocked=False)
    plan.extend(np.array([1] * 4, np.int64))
    plan.join(0)
    assert plan.assign() == [(0, [0, 1, 2, 3])]
    for position, outcome in enumerate((Outcome.NO_ROOM, Outcome.FAILED, Outcome.KEPT, Outcome.LEFT)):
        assert not plan.done()
        plan.settle(0, position, outcome)
    assert plan.done()
    assert plan.assign() == []
    assert plan.ahead() == (4, 4)


def test_staged_objects_fill_the_window_until_they_are_consumed() -> None:
    plan = plan_of([300] * 20)
    assert plan.assign() == [(0, [0, 1, 2])]
    for position in range(3):
        plan.settle(0, position, Outcome.STAGED)
    assert plan.assign() == []
    plan.move(2, consumed=0)  # asked for, yet not read
    assert plan.assign() == []
    plan.move(3, consumed=2)
    assert plan.assign() == [(0, [3, 4])]
    assert plan.held_bytes() == {0: 900}


def test_an_object_larger_than_the_window_is_fetched_alone_and_not_again_without_room() -> None:
    plan = plan_of([5000, 10])
    assert plan.assign() == [(0, [0])]
    assert plan.assign() == []
    plan.settle(0, 0, Outcome.NO_ROOM)
    assert plan.assign() == [(0, [1])]


def test_without_room_a_worker_waits_for_the_clock() -> None:
    plan = plan_of([10] * 3, chunk=1)
    plan.assign()
    plan.settle(0, 0, Outcome.NO_ROOM)
    assert plan.assign() == []
    assert plan.waits()
    plan.move(1, consumed=0)
    assert plan.assign() == [(0, [1])]


def test_what_failed_is_given_out_once_more_and_then_left_to_the_readers() -> None:
    plan = plan_of([1])
    for _ in range(2):
        assert plan.assign() == [(0, [0])]
        plan.settle(0, 0, Outcome.FAILED)
    assert plan.assign() == []
    assert plan.done()
    assert plan.counts[Outcome.FAILED] == 2


def test_a_dead_workers_work_and_what_it_had_staged_goes_to_others() -> None:
    plan = plan_of([1] * 8, workers=2)
    plan.assign()
    plan.settle(0, 0, Outcome.STAGED)
    plan.settle(0, 1, Outcome.KEPT)
    plan.leave(0)
    assert plan.assign() == [(1, [0, 2, 3])]
    plan.settle(0, 2, Outcome.KEPT)  # a report that was under way
    plan.leave(1)
    plan.join(2)
    assert plan.assign() == [(2, [0, 4, 5, 6])]  # 2 and 3 were given out twice


def test_the_order_may_grow_and_begin_later() -> None:
    plan = plan_of([1, 1], start=10, chunk=100)
    assert plan.assign() == [(0, [10, 11])]
    assert plan.assign() == []
    plan.extend(np.array([1, 1]))
    assert plan.assign() == [(0, [12, 13])]
    plan.settle(0, 10, Outcome.KEPT)
    plan.settle(0, 12, Outcome.KEPT)
    assert plan.ahead() == (1, 1)


def test_positions_behind_the_clock_by_bytes() -> None:
    plan = plan_of([10] * 10)
    plan.move(8, consumed=0)
    assert plan.position_behind(30) == 5
    assert plan.position_behind(35) == 5
    assert plan.position_behind(1000) == 0


@pytest.mark.slow
def test_an_endless_order_is_forgotten_behind_the_clock() -> None:
    plan = plan_of([], window=1 << 40, chunk=1 << 16)
    for block in range(100):
        plan.extend(np.ones(1 << 16, np.int64))
        (_, positions), *_ = plan.assign()
        for position in positions:
            plan.settle(0, position, Outcome.KEPT)
        plan.move((block + 1) << 16, consumed=(block + 1) << 16)
        assert len(plan._sizes) < 3 << 20
    assert plan.ahead() == (0, 0)


class PlanMachine(RuleBasedStateMachine):
    """Anything may happen in any order: no position is out twice, none is lost, no window is exceeded."""

    @initialize(window=st.integers(1, 200), chunk=st.integers(1, 5), start=st.integers(0, 3))
    def begin(self, window: int, chunk: int, start: int) -> None:
        self.window = window
        self.plan = Plan(window_bytes=window, chunk=chunk, start=start)
        self.start = self.clock = self.consumed = start
        self.sizes: dict[int, int] = {}
        self.workers: set[int] = set()
        self.born = 0
        self.out: dict[int, int] = {}  # position -> worker
        self.staged: dict[int, int] = {}
        self.given: dict[int, int] = {}
        self.finished: set[int] = set()

    @rule(sizes=st.lists(st.integers(-1, 80), max_size=12))
    def extend(self, sizes: list[int]) -> None:
        for size in sizes:
            self.sizes[self.start + len(self.sizes)] = size
        self.plan.extend(np.array(sizes, np.int64))

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def join(self) -> None:
        self.plan.join(self.born)
        self.workers.add(self.born)
        self.born += 1

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.workers)))
        self.plan.leave(worker)
        self.workers.discard(worker)
        for held in (self.out, self.staged):
            for position in [position for position, owner in held.items() if owner == worker]:
                del held[position]
                self.finished.discard(position)

    @rule(by=st.integers(0, 6), behind=st.integers(0, 6))
    def move(self, by: int, behind: int) -> None:
        self.clock = min(self.clock + by, self.start + len(self.sizes))
        self.consumed = max(self.consumed, self.clock - behind)
        self.plan.move(self.clock, consumed=self.consumed)
        self.staged = {position: owner for position, owner in self.staged.items() if position >= self.consumed}

    @rule()
    def assign(self) -> None:
        for worker, positions in self.plan.assign():
            assert worker in self.workers
            for position in positions:
                assert position not in self.out, "given out twice"
                assert position not in self.staged
                assert position not in self.finished
                assert position >= self.clock
                assert self.sizes[position] >= 0
                self.out[position] = worker
                self.given[position] = self.given.get(position, 0) + 1

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        position = data.draw(st.sampled_from(sorted(self.out)))
        worker = self.out.pop(position)
        self.plan.settle(worker, position, outcome)
        if outcome is Outcome.STAGED:
            self.staged[position] = worker
            if position < self.consumed:
                self.plan.move(self.clock, consumed=self.consumed)
                del self.staged[position]
        if outcome not in (Outcome.FAILED, Outcome.NO_ROOM):
            self.finished.add(position)

    @invariant()
    def windows_hold(self) -> None:
        if not hasattr(self, "plan"):
            return
        for worker, held_bytes in self.plan.held_bytes().items():
            has = [p for held in (self.out, self.staged) for p, owner in held.items() if owner == worker]
            assert held_bytes == sum(self.sizes[position] for position in has)
            assert held_bytes <= self.window or len([p for p in has if self.sizes[p]]) == 1

    def teardown(self) -> None:
        """Whatever happened: with one worker, and a loop that goes on, it comes to its end and nothing is left out."""
        if not hasattr(self, "plan"):
            return
        for worker in sorted(self.workers):
            for position in [position for position, owner in self.out.items() if owner == worker]:
                self.plan.settle(worker, position, Outcome.KEPT)
                self.finished.add(position)
        self.out.clear()
        self.join()
        end = self.start + len(self.sizes)
        for _ in range(4 * len(self.sizes) + 4):
            self.assign()
            for position, worker in list(self.out.items()):
                self.plan.settle(worker, position, Outcome.KEPT)
                self.finished.add(position)
            self.out.clear()
            if self.plan.done():
                break
            self.clock = min(self.clock + 1, end)
            self.plan.move(self.clock, consumed=self.clock)
            self.staged.clear()
        assert self.plan.done()
        for position, size in self.sizes.items():
            reached = position in self.finished or position < self.clock or self.given.get(position, 0) >= 2
            assert reached or size < 0 or size > self.window, f"position {position} was lost"


PlanMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPlanMachine = PlanMachine.TestCase
