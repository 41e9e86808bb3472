"""Which worker of a DataLoader is where, told from the batches that its loop has taken."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aiscache.datasets.turns import turns_after
from aiscache.errors import ConfigError


def delivered(lengths: list[int], batch_size: int, drop_last: bool) -> list[tuple[int, int]]:
    """What a DataLoader hands over: (worker, samples in the batch), worker by worker, those without any left out."""
    rest = dict(enumerate(lengths))
    cycle = deque(rest)
    found = []
    while cycle:
        worker = cycle.popleft()
        size = min(batch_size, rest[worker])
        if size == 0 or (drop_last and size < batch_size):
            continue
        rest[worker] -= size
        found.append((worker, size))
        cycle.append(worker)
    return found


class Numbers(IterableDataset[Any]):
    """Of each worker as many as it says: (worker, number)."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __iter__(self) -> Any:
        info = get_worker_info()
        assert info is not None
        return ((info.id, number) for number in range(self.lengths[info.id]))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("lengths", [[7, 0, 23], [5, 6], [0, 0, 4, 9]])
def test_torch_takes_a_batch_of_each_worker_in_turn(lengths: list[int], drop_last: bool) -> None:
    loader: Any = DataLoader(
        Numbers(lengths), batch_size=3, num_workers=len(lengths), drop_last=drop_last, collate_fn=list
    )
    assert [(batch[0][0], len(batch)) for batch in loader] == delivered(lengths, 3, drop_last)


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_the_rest_comes_in_the_same_order(
    lengths: list[int], batch_size: int, drop_last: bool, data: st.DataObject
) -> None:
    whole = delivered(lengths, batch_size, drop_last)
    batches = data.draw(st.integers(0, len(whole)))
    turns = turns_after(batches, workers=len(lengths), batch_size=batch_size, drop_last=drop_last, lengths=lengths)
    assert sorted(worker for worker, _ in turns) == list(range(len(lengths)))
    had = {worker: sum(size for one, size in whole[:batches] if one == worker) for worker in range(len(lengths))}
    assert dict(turns) == had
    left = delivered([lengths[worker] - yielded for worker, yielded in turns], batch_size, drop_last)
    assert [(turns[place][0], size) for place, size in left] == whole[batches:]


@given(count=st.integers(0, 60), workers=st.integers(1, 5), batch_size=st.integers(1, 7), data=st.data())
def test_lengths_are_not_needed_where_samples_are_dealt_out_one_by_one(
    count: int, workers: int, batch_size: int, data: st.DataObject
) -> None:
    lengths = [len(range(worker, count, workers)) for worker in range(workers)]
    batches = data.draw(st.integers(0, len(delivered(lengths, batch_size, False))))
    turns = turns_after(batches, workers=workers, batch_size=batch_size)
    known = turns_after(batches, workers=workers, batch_size=batch_size, lengths=lengths)
    left = [(worker, lengths[worker] - had) for worker, had in turns if had < lengths[worker]]
    assert left == [(worker, lengths[worker] - had) for worker, had in known if had < lengths[worker]]


@pytest.mark.parametrize("batches", [-1, 5])
def test_more_batches_than_an_epoch_has_are_refused(batches: int) -> None:
    with pytest.raises(ConfigError, match=f"batches={batches} must be from 0 to the 4 batches"):
        turns_after(batches, workers=2, batch_size=4, lengths=[9, 3])
