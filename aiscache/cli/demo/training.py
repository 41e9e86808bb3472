"""The work of the demo: a small model that learns a class from the objects' bytes.

Both contenders do this very work: the same model from the same seed, the same batches in the same order, the same
collate function in the same number of workers. So they have the same loss after each epoch.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

_SEED = 7
_FEATURES = 1024
_HIDDEN = 32


def collate(samples: list[tuple[str, Any]]) -> Any:
    """Stack the contents of a batch of objects of one size into a uint8 tensor, a row for each."""
    return torch.from_numpy(np.stack([np.frombuffer(content, np.uint8) for _, content in samples]))


def make_loader(dataset: Any, *, batch_size: int, workers: int) -> Any:
    """Return torch's own DataLoader, which shuffles in the same order for every contender."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(_SEED),
        worker_init_fn=leave_interrupts,
        persistent_workers=workers > 0,
    )


def leave_interrupts(_worker: int) -> None:
    """Let the main process alone answer Ctrl-C, which a terminal sends to all; it then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Trainer:
    """A model of two layers, and what it needs to learn."""

    def __init__(self, *, object_bytes: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(_SEED)
        self._inputs = min(_FEATURES, object_bytes)
        self._model = torch.nn.Sequential(
            torch.nn.Linear(self._inputs, _HIDDEN), torch.nn.ReLU(), torch.nn.Linear(_HIDDEN, 2)
        )
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=0.002)

    def step(self, batch: Any) -> float:
        """Learn from a batch whether the objects' first byte is in its upper half; return the loss."""
        labels = (batch[:, 0] >= 128).long()
        inputs = batch[:, : self._inputs].float() / 127.5 - 1
        loss = torch.nn.functional.cross_entropy(self._model(inputs), labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def epoch(self, loader: Any, on_batch: Callable[[int], None]) -> float:
        """Train on all batches; `on_batch` is told the size of each. Returns the mean loss of the epoch."""
        losses = []
        for batch in loader:
            losses.append(self.step(batch))
            on_batch(len(batch))
        return sum(losses) / max(len(losses), 1)


def warm_up(*, object_bytes: int, batch_size: int) -> None:
    """Do a step on made-up data, so that torch's first-time costs are in nobody's first epoch."""
    Trainer(object_bytes=object_bytes).step(torch.zeros(batch_size, object_bytes, dtype=torch.uint8))
