"""PyTorch datasets for NVIDIA AIStore that read through a cache shared by every process of a machine.

    from aiscache import AISMapDataset, Cache

    dataset = AISMapDataset(client.bucket("imagenet"), cache=Cache("/mnt/nvme/aiscache", capacity="200GB"))

Names are imported when they are first used: `import aiscache` costs milliseconds and imports neither torch nor numpy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiscache.cache import Cache
    from aiscache.datasets.base_iter import AISBaseIterDataset
    from aiscache.datasets.base_map import AISBaseMapDataset
    from aiscache.datasets.batch_iter import AISBatchIterDataset
    from aiscache.datasets.dynamic_sampler import DynamicBatchSampler
    from aiscache.datasets.iter_dataset import AISIterDataset
    from aiscache.datasets.map_dataset import AISMapDataset
    from aiscache.datasets.multishard import AISMultiShardStream
    from aiscache.datasets.parallel_map import AISParallelMapDataset
    from aiscache.datasets.shard_dataset import AISShardDataset
    from aiscache.datasets.shard_reader import AISShardReader
    from aiscache.loader import DataLoader
    from aiscache.samplers import PrefetchSampler
    from aiscache.stats import CacheStats
    from aiscache.view import View

__version__ = "0.1.0"

__all__ = [
    "AISBaseIterDataset",
    "AISBaseMapDataset",
    "AISBatchIterDataset",
    "AISIterDataset",
    "AISMapDataset",
    "AISMultiShardStream",
    "AISParallelMapDataset",
    "AISShardDataset",
    "AISShardReader",
    "Cache",
    "CacheStats",
    "DataLoader",
    "DynamicBatchSampler",
    "PrefetchSampler",
    "View",
]

_HOME = {
    "AISBaseIterDataset": "aiscache.datasets.base_iter",
    "AISBaseMapDataset": "aiscache.datasets.base_map",
    "AISBatchIterDataset": "aiscache.datasets.batch_iter",
    "AISIterDataset": "aiscache.datasets.iter_dataset",
    "AISMapDataset": "aiscache.datasets.map_dataset",
    "AISMultiShardStream": "aiscache.datasets.multishard",
    "AISParallelMapDataset": "aiscache.datasets.parallel_map",
    "AISShardDataset": "aiscache.datasets.shard_dataset",
    "AISShardReader": "aiscache.datasets.shard_reader",
    "Cache": "aiscache.cache",
    "CacheStats": "aiscache.stats",
    "DataLoader": "aiscache.loader",
    "DynamicBatchSampler": "aiscache.datasets.dynamic_sampler",
    "PrefetchSampler": "aiscache.samplers",
    "View": "aiscache.view",
}

if os.environ.get("AISCACHE_LOG_LEVEL"):
    from aiscache.log import set_level

    set_level(os.environ["AISCACHE_LOG_LEVEL"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aiscache' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
