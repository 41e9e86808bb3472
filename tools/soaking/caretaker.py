"""`Caretaker`: evicts, clears, verifies, repairs and warms, by the API and as the command line does."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
import traceback
from collections.abc import Callable

from aiscache import Cache
from aiscache.cli import main
from tools.soaking.objects import BUCKET, FOLDERS
from tools.soaking.scene import Scene


class Caretaker:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._acts: dict[str, tuple[int, Callable[[], None]]] = {
            "evict": (8, self._evict),
            "evict by force": (4, self._evict_by_force),
            "clear": (1, lambda: self._opened(lambda cache: cache.clear())),
            "verify": (5, self._verify),
            "repair": (3, lambda: self._opened(lambda cache: cache.repair())),
            "stats": (4, lambda: self._opened(lambda cache: cache.stats())),
            "warm": (2, self._warm),
            "aiscache stats": (2, lambda: self._command("stats", "--json")),
            "aiscache ls": (1, lambda: self._command("ls")),
            "aiscache verify": (1, lambda: self._command("verify", "--json")),
            "aiscache evict": (1, lambda: self._command("evict", "--yes", self._source())),
        }

    def act(self) -> None:
        names = list(self._acts)
        (kind,) = self.scene.chance.choices(names, [self._acts[name][0] for name in names])
        with self.scene.act(kind):
            self._acts[kind][1]()
        time.sleep(self.scene.chance.uniform(0.1, 1.0))

    def close(self) -> None:
        pass

    def _opened(self, work: Callable[[Cache], object]) -> None:
        with self.scene.cache() as cache:
            work(cache)

    def _source(self) -> str:
        return f"ais://{BUCKET}/{self.scene.chance.choice(FOLDERS)}/{self.scene.chance.randrange(10):04}"

    def _evict(self) -> None:
        prefix = self.scene.chance.choice(["", f"{self.scene.chance.choice(FOLDERS)}/"])
        self._opened(lambda cache: cache.evict(prefix=prefix))

    def _evict_by_force(self) -> None:
        prefix = f"{self.scene.chance.choice(FOLDERS)}/"
        self._opened(lambda cache: cache.evict(prefix=prefix, force=True))

    def _verify(self) -> None:
        def verify(cache: Cache) -> None:
            self.scene.wrong += [f"verify found {ref.url} damaged" for ref in cache.verify()]

        self._opened(verify)

    def _warm(self) -> None:
        bucket = self.scene.job.client().bucket(BUCKET)
        prefix = f"{self.scene.chance.choice(FOLDERS)}/"
        self._opened(lambda cache: cache.warm(bucket, {bucket: prefix}, processes=1, connections=8, partial=True))

    def _command(self, *arguments: str) -> None:
        """Run the command line in a process of its own."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    code = main([*arguments, "--cache", self.scene.job.cache])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, -signal.SIGKILL):
            self.scene.wrong.append(f"aiscache {' '.join(arguments)} ended with {code}")
