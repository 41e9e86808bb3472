"""The PyTorch datasets, API-compatible with `aistore.pytorch`."""

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
    "DynamicBatchSampler",
]
