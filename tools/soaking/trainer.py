"""`Trainer`: epochs of DataLoaders, ours with its pool and torch's, with workers of every kind and without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import data

from aiscache import AISMapDataset, Cache, DataLoader
from aiscache.errors import OriginError
from tools.soaking.scene import Scene, serial_of


class Samples(AISMapDataset):
    """Samples are (name, version, content or the name of an error, seconds that the batch took to read)."""

    def __getitems__(self, indices: Sequence[Any]) -> list[Any]:
        began = time.monotonic()
        try:
            contents: list[Any] = [content for _, content in super().__getitems__(indices)]
            seconds = time.monotonic() - began
        except OriginError:
            contents, seconds = [], 0.0
            for index in indices:
                began = time.monotonic()
                contents.append(self._one(int(index)))
                seconds = max(seconds, time.monotonic() - began)
        refs = [self.manifest.ref(int(index)) for index in indices]
        return [
            (ref.name, serial_of(ref), None if isinstance(one, Exception) else one, seconds, _error(one))
            for ref, one in zip(refs, contents, strict=True)
        ]

    def _one(self, index: int) -> Any:
        try:
            return super().__getitem__(index)[1]
        except OriginError as error:
            return error


def _error(one: Any) -> str:
    return type(one).__name__ if isinstance(one, Exception) else ""


class Trainer:
    """Each act is one loader, for an epoch or two, or a part of one."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        torch.manual_seed(scene.job.seed)

    def act(self) -> None:
        chance = self.scene.chance
        workers = chance.choice([0, 1, 2])
        method = chance.choice(["fork", "fork", "fork", "spawn"]) if workers else None
        ours = chance.random() < 0.7
        content = chance.choice(["bytes", "view"])
        kind = f"{'aiscache' if ours else 'torch'} loader, {f'workers by {method}' if method else 'no workers'}"
        self.scene.note_workers(end_with_trainer=ours)
        with self.scene.act(kind), self.scene.cache() as cache:
            self._train(cache, content, ours=ours, workers=workers, method=method)

    def close(self) -> None:
        pass

    def _train(self, cache: Cache, content: str, *, ours: bool, workers: int, method: str | None) -> None:
        chance = self.scene.chance
        dataset = self.scene.listed(Samples, cache, content=content)
        options: dict[str, Any] = {
            "batch_size": chance.randint(2, 16),
            "shuffle": True,
            "collate_fn": list,
            "num_workers": workers,
            "multiprocessing_context": method,
            "persistent_workers": bool(workers) and chance.random() < 0.5,
        }
        if len(dataset) == 0:
            return
        if not ours:
            self._epochs(data.DataLoader(dataset, **options))
            return
        loader = DataLoader(
            dataset, prefetch_processes=chance.choice([1, 2]), prefetch_connections=8,
            lookahead=self.scene.job.lookahead, **options,
        )  # fmt: skip
        try:
            self._epochs(loader)
        finally:
            if loader.prefetcher is not None:
                loader.prefetcher.close()

    def _epochs(self, loader: Any) -> None:
        for _ in range(self.scene.chance.choice([1, 1, 2])):
            left = self.scene.chance.choice([3, 20, 10**9])
            before: list[tuple[str, int, Any, float, str]] = []
            for batch in loader:
                for name, serial, content, seconds, error in batch:
                    self.scene.took(seconds)
                    if error:
                        self.scene.check_error(name, serial, error)
                    else:
                        self.scene.check(name, serial, content)
                for name, serial, content, _, error in before:  # views of the last batch are still what they were
                    if not error:
                        self.scene.check(name, serial, content)
                before = batch
                left -= 1
                if not left:
                    break
                self.scene.step()
