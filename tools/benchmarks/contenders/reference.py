"""aistore.pytorch: no cache, each epoch reads from the cluster."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Contender, Place, bucket


def map_dataset(place: Place) -> Any:
    from aistore.pytorch import AISMapDataset

    return AISMapDataset(bucket(place))


def batch_dataset(place: Place) -> Any:
    from aistore.pytorch.batch_iter_dataset import AISBatchIterDataset
    from aistore.sdk import Client

    return AISBatchIterDataset(bucket(place), Client(place.endpoint), max_batch_size=64)


def shard_reader(place: Place) -> Any:
    from aistore.pytorch import AISShardReader

    return AISShardReader(bucket(place))


CONTENDERS = {
    "aistore-map": Contender("aistore.pytorch AISMapDataset", map_dataset),
    "aistore-batch": Contender("aistore.pytorch AISBatchIterDataset", batch_dataset),
    "aistore-shards": Contender("aistore.pytorch AISShardReader", shard_reader),
}
