"""`Reader`: uses a `Cache` directly: reads, puts, holds views, forks, opens anew."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from aiscache import AISMapDataset, Cache, View
from aiscache.errors import OriginError
from aiscache.keys import ObjectRef
from tools.soaking.objects import content
from tools.soaking.scene import Scene, serial_of

_PR_SET_PDEATHSIG = 1
_RELIST_S = 5.0
_MOST_HELD = 4


class Reader:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._cache: Cache | None = None
        self._dataset: AISMapDataset | None = None
        self._listed_at = 0.0
        self._held: list[tuple[ObjectRef, View]] = []
        self._acts: dict[str, tuple[int, Callable[[], None]]] = {
            "read": (40, self._read),
            "look": (5, self._look),
            "hold": (6, self._hold),
            "let go": (2, self._let_go),
            "put": (6, self._put),
            "threads": (3, self._threads),
            "fork": (2, self._fork),
            "pickle": (1, self._pickle),
            "reopen": (2, self.close),
        }

    def act(self) -> None:
        if self._dataset is None or time.monotonic() - self._listed_at > _RELIST_S:
            with self.scene.act("list"):
                self._list()
            return
        names = list(self._acts)
        (kind,) = self.scene.chance.choices(names, [self._acts[name][0] for name in names])
        with self.scene.act(kind):
            self._acts[kind][1]()

    def close(self) -> None:
        self._check_held()
        self._held.clear()
        self._dataset = None
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    # ---- acts

    def _list(self) -> None:
        if self._cache is None:
            self._cache = self.scene.cache()
        age_s = self.scene.chance.choice([0, 0, 0, 20])
        self._dataset = self.scene.listed(AISMapDataset, self._cache, max_listing_age_s=age_s)
        self._listed_at = time.monotonic()

    def _read(self) -> None:
        self._read_refs(self._some(self.scene.chance.choice([1, 1, 4, 16])))

    def _look(self) -> None:
        for ref in self._some(8):
            self._opened.contains(ref)
        self._opened.stats()

    def _hold(self) -> None:
        self._check_held()
        if len(self._held) < _MOST_HELD:
            (ref,) = self._some(1)
            self._held.append((ref, self._opened.read(ref)))

    def _let_go(self) -> None:
        self._check_held()
        self._held.clear()

    def _put(self) -> None:
        (ref,) = self._some(1)
        self._opened.put(ref, content(ref.name, serial_of(ref)))

    def _threads(self) -> None:
        shares = [self._some(6) for _ in range(3)]
        found: list[tuple[ObjectRef, View | Exception]] = []

        def work(refs: Sequence[ObjectRef]) -> None:
            for ref in refs:
                try:
                    found.append((ref, self._opened.read(ref)))
                except Exception as error:
                    found.append((ref, error))

        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for ref, one in found:
            self._take(ref, one)

    def _fork(self) -> None:
        """Read in a child, while this process holds what it holds."""
        refs = self._some(3)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    status = 0 if self._reads_right(refs) else 3
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        pidfd = os.pidfd_open(pid)
        select.select([pidfd], [], [])
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, -signal.SIGKILL):
            self.scene.wrong.append(f"a forked child that read {[ref.url for ref in refs]} ended with {code}")

    def _reads_right(self, refs: Sequence[ObjectRef]) -> bool:
        for ref in refs:
            try:
                if bytes(self._opened.read(ref)) != content(ref.name, serial_of(ref)):
                    return False
            except OriginError:
                continue
        return True

    def _pickle(self) -> None:
        """Read through a second handle."""
        with pickle.loads(pickle.dumps(self._opened)) as again:
            for ref in self._some(2):
                self._take(ref, again.read(ref))

    # ---- how

    @property
    def _opened(self) -> Cache:
        assert self._cache is not None
        return self._cache

    def _some(self, count: int) -> list[ObjectRef]:
        assert self._dataset is not None
        manifest = self._dataset.manifest
        return [manifest.ref(self.scene.chance.randrange(len(manifest))) for _ in range(count if len(manifest) else 0)]

    def _read_refs(self, refs: list[ObjectRef]) -> None:
        began = time.monotonic()
        try:
            views: Sequence[View | Exception] = self._opened.read_many(refs)
        except OriginError:
            views = [self._one(ref) for ref in refs]
        else:
            self.scene.took(time.monotonic() - began)
        for ref, view in zip(refs, views, strict=True):
            self._take(ref, view)

    def _one(self, ref: ObjectRef) -> View | Exception:
        began = time.monotonic()
        try:
            return self._opened.read(ref)
        except OriginError as error:
            return error
        finally:
            self.scene.took(time.monotonic() - began)

    def _take(self, ref: ObjectRef, one: View | Exception) -> None:
        if not isinstance(one, Exception):
            self.scene.check(ref.name, serial_of(ref), one)
        elif isinstance(one, OriginError):
            self.scene.check_error(ref.name, serial_of(ref), type(one).__name__)
        else:
            self.scene.unforeseen(one)

    def _check_held(self) -> None:
        for ref, view in self._held:
            if bytes(view) != content(ref.name, serial_of(ref)):
                self.scene.wrong.append(f"a view of {ref.url} that was held shows other bytes now")
