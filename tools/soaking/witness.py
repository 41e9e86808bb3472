"""`Witness`: reads and trains from the first round to the last and is never killed, so that leaks would show."""

from __future__ import annotations

import gc

from aiscache.origin import Origin
from aiscache.store import registry
from tools.soaking.reader import Reader
from tools.soaking.scene import Scene
from tools.soaking.trainer import Trainer


class Witness:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._reader, self._trainer = Reader(scene), Trainer(scene)

    def act(self) -> None:
        if self.scene.chance.random() < 0.97:
            self._reader.act()
        else:
            self._trainer.act()

    def close(self) -> None:
        self._reader.close()
        Origin.close_all()
        gc.collect()
        open_ = registry._registry.handles
        if open_:
            self.scene.wrong.append(f"caches stay open when all handles are closed: {dict(open_)}")
