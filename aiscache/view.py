"""`View`: an object's bytes where they lie, as a read-only array."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    import torch


class View(np.ndarray[Any, np.dtype[np.uint8]]):
    """A read-only `uint8` array of shape (length,) over the bytes of one object, without a copy of them.

    The bytes lie in a cache segment that stays mapped for as long as the view lives, whatever the cache does meanwhile
    (an object that was not admitted lies in this process's own memory). numpy raises on a write, and the mapping
    itself is read-only, so no process can change what another one reads. `bytes(view)`, `np.frombuffer`,
    `memoryview(view)` and `torch.from_numpy` take it as they take any array.
    """

    __slots__ = ("sample", "segment")

    segment: Any
    """Of an array over a whole segment: what tells other processes where it is. Other views find it in their `base`."""
    sample: Any
    """Set where a view is to cross processes: how to read the object again if its segment is gone by then."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the bytes; multiprocessing alone sends a reference (`aiscache.datasets.reference`)."""
        return own_view, (self.tobytes(),)

    def tensor(self, *, copy: bool = False) -> torch.Tensor:
        """Return a uint8 tensor of shape (length,) over the same bytes, at no cost.

        torch has no read-only tensors: writing into this one in place kills the process (the pages are mapped
        read-only). `copy=True` gives a tensor of its own.
        """
        import torch

        if copy:
            return torch.from_numpy(np.array(self, subok=False))
        if self.size == 0:
            return torch.empty(0, dtype=torch.uint8)
        # torch.frombuffer on a read-only buffer and torch.from_numpy both warn, once a process, that writes are
        # undefined behaviour: said above. An array that claims to be writable over the same address does not warn.
        return torch.from_numpy(_claim_writable(self))

    def file(self) -> io.BufferedIOBase:
        """Return a seekable binary file over the bytes, for `PIL.Image.open`, `soundfile.read` and their like.

        It reads from where the bytes lie; only what is read is copied.
        """
        return cast(io.BufferedIOBase, io.BufferedReader(_ViewFile(self)))


class _Address:
    """An address and a length that numpy takes for a writable buffer, and the view that keeps it mapped."""

    __slots__ = ("__array_interface__", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        address = view.__array_interface__["data"][0]
        self.__array_interface__ = {"version": 3, "shape": view.shape, "typestr": "|u1", "data": (address, False)}


def _claim_writable(view: View) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(_Address(view))


class _ViewFile(io.RawIOBase):
    """The raw file under `View.file()`."""

    def __init__(self, view: View) -> None:
        self._bytes = view.data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._bytes)}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to offset {offset} with whence {whence}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        chunk = self._bytes[self._position : self._position + len(target)]
        target[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)


def own_view(data: Any) -> View:
    """Return a view over `data` (any buffer of bytes), which it keeps alive and makes read-only."""
    array = np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, np.uint8)
    view = array.view(View)
    view.flags.writeable = False
    return view
