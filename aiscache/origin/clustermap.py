"""Which target owns an object: the cluster map and its rendezvous hash, as in the SDK's `Smap.get_target_for_object`.

Written out here because the data path must not wait for the SDK's import (pydantic, requests), and because 3 us per
object and target count against 100 us per GET. Tests compare every answer with the SDK's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import xxhash

from aiscache.errors import OriginError

_SEED = 1103515245  # aistore.sdk.const.XX_HASH_SEED
_UNUSABLE = 1 << 2 | 1 << 3  # maintenance, decommission
_MASK = 0xFFFFFFFFFFFFFFFF
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_U27, _U30, _U31 = np.uint64(27), np.uint64(30), np.uint64(31)


class _Net(msgspec.Struct):
    direct_url: str = ""


class _Node(msgspec.Struct):
    public_net: _Net | None = None
    flags: int = 0
    id_digest: int = 0


class _Smap(msgspec.Struct):
    tmap: dict[str, _Node]
    uuid: str
    version: int | str = 0


_MANY = 12  # targets from which on numpy is faster

_DECODER = msgspec.json.Decoder(_Smap)


@dataclass(frozen=True)
class ClusterMap:
    """One version of the cluster map: `targets` are (id digest, URL) of those that serve objects."""

    uuid: str
    version: str
    targets: tuple[tuple[int, str], ...]

    @classmethod
    def decode(cls, body: bytes) -> ClusterMap:
        """Read the answer to `GET /v1/daemon?what=smap`; OriginError if it is something else."""
        try:
            smap = _DECODER.decode(body)
        except msgspec.DecodeError as error:
            raise OriginError(
                f"the endpoint answered with no cluster map: {error}; is it the URL of an AIS proxy?"
            ) from error
        targets = tuple(
            (node.id_digest, node.public_net.direct_url.rstrip("/"))
            for node in smap.tmap.values()
            if not node.flags & _UNUSABLE and node.public_net is not None
        )
        return cls(smap.uuid, str(smap.version), targets)

    def owner(self, uname: bytes) -> str | None:
        """Return the URL of the target that owns an object, None if the cluster has none; 1.5 us a target."""
        if len(self.targets) > _MANY:
            return self.owners([uname])[0]
        digest = xxhash.xxh64_intdigest(uname, _SEED)
        best, owner = -1, None
        for id_digest, url in self.targets:
            z = ((id_digest ^ digest) + _GOLDEN) & _MASK
            z = (z ^ (z >> 30)) * _MIX_1 & _MASK
            z = (z ^ (z >> 27)) * _MIX_2 & _MASK
            z = (z ^ (z >> 31)) + _GOLDEN & _MASK
            z = (z ^ (z >> 30)) * _MIX_1 & _MASK
            z = (z ^ (z >> 27)) * _MIX_2 & _MASK
            z = (z ^ (z >> 31)) * 5 & _MASK
            score = ((z << 7 | z >> 57) & _MASK) * 9 & _MASK
            if score > best:
                best, owner = score, url
        return owner

    def owners(self, unames: Sequence[bytes]) -> list[str | None]:
        """Return the owners of many objects at once, each against all targets; under 1 us per object.

        Unsigned numpy arithmetic wraps as the hash wants it.
        """
        if not self.targets:
            return [None] * len(unames)
        digests = np.array([xxhash.xxh64_intdigest(uname, _SEED) for uname in unames], np.uint64)
        id_digests = np.array([id_digest for id_digest, _ in self.targets], np.uint64)
        z = (id_digests ^ digests[:, None]) + np.uint64(_GOLDEN)
        z = (z ^ (z >> _U30)) * np.uint64(_MIX_1)
        z = (z ^ (z >> _U27)) * np.uint64(_MIX_2)
        z = (z ^ (z >> _U31)) + np.uint64(_GOLDEN)
        z = (z ^ (z >> _U30)) * np.uint64(_MIX_1)
        z = (z ^ (z >> _U27)) * np.uint64(_MIX_2)
        z = (z ^ (z >> _U31)) * np.uint64(5)
        scores = (z << np.uint64(7) | z >> np.uint64(57)) * np.uint64(9)
        return [self.targets[place][1] for place in scores.argmax(axis=1).tolist()]
