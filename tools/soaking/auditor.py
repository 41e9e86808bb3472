"""`Auditor` and `Filler`: who comes when all others are dead, opens the cache and looks at what they left."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from torch.utils import data

from aiscache import AISMapDataset, Cache, DataLoader
from aiscache.store.index import MEMORY, STAGING
from tools.soaking.objects import FOLDERS
from tools.soaking.scene import Scene, serial_of
from tools.soaking.trainer import Samples

_FILE_SYSTEMS_OWN = 4096  # a file that is written in part has a block for the list of its parts, for a while (ext4)
_OURS = re.compile(
    r"format|CACHEDIR\.TAG|boot|leases|flights|stats|runs|index(/(data\.mdb|lock\.mdb|closed))?"
    r"|segments(/[0-9a-f]{16}\.seg)?"
    r"|staging|manifests(/(listings|[0-9a-f-]{65}\.(manifest|members)))?"
)


class Auditor:
    """Opens the cache alone: nothing is staged, all bytes are whole and right, and the books agree with the disk."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def act(self) -> bool:
        with self.scene.act("audit"):
            job = self.scene.job
            with Cache(job.cache, capacity=job.capacity, memory=job.memory) as cache:
                self._audit(cache)
        return True

    def close(self) -> None:
        pass

    def _audit(self, cache: Cache) -> None:
        wrong = self.scene.wrong
        wrong += [f"verify found {ref.url} damaged" for ref in cache.verify()]
        self._check_books(cache, "after all ended")
        dataset = self.scene.listed(AISMapDataset, cache)
        wrong += [f"{path} is a stranger in the cache" for path in _strangers(Path(self.scene.job.cache))]
        for row, ref in enumerate(dataset.manifest):
            self.scene.check(ref.name, serial_of(ref), dataset.read(row))
        self._check_books(cache, "after all was read")
        self.scene.extra["stats"] = cache.stats().asdict()
        cache.clear()
        self._check_books(cache, "after it was cleared", empty=True)

    def _check_books(self, cache: Cache, when: str, *, empty: bool = False) -> None:
        """What is reserved in each tier is what its segments take on disk, and none are staged."""
        store = cache.store()
        assert store is not None
        if empty:
            store.trim()
        for number, (reserved, capacity) in store.upkeep.usage().items():
            sizes = [file.stat().st_blocks * 512 for file in store.tiers[number].path.glob("*.seg")]
            found, slack = sum(sizes), 0 if number == MEMORY else _FILE_SYSTEMS_OWN * len(sizes)
            if abs(found - reserved) > slack or reserved > capacity or (empty and found):
                self.scene.wrong.append(
                    f"{when}, tier {number} has {found:,} bytes on disk, {reserved:,} in its books, of {capacity:,}"
                )
        staged = list(store.tiers[STAGING].path.glob("*.seg"))
        if staged:
            self.scene.wrong.append(f"{when}, {len(staged)} segments are staged and nobody reads them")


class Filler:
    """Reads a folder that fits, beside others who do the same: by a Cache, by our DataLoader or by torch's."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def act(self) -> bool:
        job = self.scene.job
        with self.scene.act("fill"), Cache(job.cache, capacity=job.capacity, memory=job.memory) as cache:
            dataset = self.scene.listed(Samples, cache, prefix=f"{FOLDERS[0]}/")
            rows = list(range(len(dataset)))
            self.scene.chance.shuffle(rows)
            read = (self._by_threads, self._by_our_loader, self._by_torchs)[job.seed % 3](dataset, rows)
            for name, serial, content, _, error in read:
                if error:
                    self.scene.wrong.append(f"{error} for {name}, and nothing is wrong with the cluster")
                else:
                    self.scene.check(name, serial, content)
            if len(read) != len(dataset):
                self.scene.wrong.append(f"{len(read)} samples were read of {len(dataset)}")
            self.scene.extra["filled"] = len(dataset)
        return True

    def close(self) -> None:
        pass

    def _by_threads(self, dataset: Samples, rows: list[int]) -> list[Any]:
        read: list[Any] = []

        def work(first: int) -> None:
            for start in range(first, len(rows), 24):
                read.extend(dataset.__getitems__(rows[start : start + 8]))

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 8, 16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return read

    def _by_our_loader(self, dataset: Samples, rows: list[int]) -> list[Any]:
        loader = DataLoader(
            dataset, batch_size=8, sampler=rows, collate_fn=list, num_workers=1, prefetch_processes=1,
            lookahead=self.scene.job.lookahead,
        )  # fmt: skip
        read = [sample for batch in loader for sample in batch]
        if loader.prefetcher is not None:
            loader.prefetcher.close()
        return read

    def _by_torchs(self, dataset: Samples, rows: list[int]) -> list[Any]:
        loader: Any = data.DataLoader(dataset, batch_size=8, sampler=rows, collate_fn=list, num_workers=2)
        return [sample for batch in loader for sample in batch]


def _strangers(path: Path) -> list[str]:
    found = (str(file.relative_to(path)) for file in path.rglob("*"))
    return [name for name in found if not _OURS.fullmatch(name)]
