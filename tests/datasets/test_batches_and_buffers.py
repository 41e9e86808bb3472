"""`AISBatchIterDataset` and `AISParallelMapDataset`."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from aiscache import AISBatchIterDataset, AISParallelMapDataset, Cache, View
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError, ObjectNotFoundError

from .test_map_dataset import METHODS, read_epoch


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = {f"o{number:03}": os.urandom(100 * number) for number in range(1, 60)}
    dev_cluster.put_many(bucket_name, made)
    return made


def test_a_missing_object_raises_or_is_left_out(
    dev_cluster: DevCluster,
    bucket_name: str,
    objects: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = dev_cluster.client()
    bucket = client.bucket(bucket_name)
    options: dict[str, Any] = {"cache": tmp_path / "cache", "max_batch_size": 8, "show_progress": True}
    strict = AISBatchIterDataset(bucket, client, **options)
    lenient = AISBatchIterDataset(bucket, client, cont_on_err=True, **options)
    bucket.object("o020").delete()
    with pytest.raises(ObjectNotFoundError, match=f"{bucket_name}/o020"):
        list(strict)
    with caplog.at_level(logging.WARNING, "aiscache"):
        assert [name for name, _ in lenient] == [name for name in objects if name != "o020"]
    assert f"{bucket_name}/o020" in caplog.text
    stream = iter(lenient)
    begun = [next(stream) for _ in range(30)]
    again = pickle.loads(pickle.dumps(lenient))
    again.load_state_dict(lenient.state_dict())
    rest = [name for name, _ in again]
    assert [name for name, _ in begun] + rest == [
        name for name in map(lenient.manifest.name, range(59)) if name != "o020"
    ]
    with pytest.raises(ConfigError, match="max_batch_size"):
        AISBatchIterDataset(bucket, client, max_batch_size=0, cache=False)


@pytest.mark.parametrize(("workers", "method"), METHODS[:2])
def test_buffers_have_the_bytes_of_aistore_pytorch(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path, workers: int, method: str
) -> None:
    from aistore.pytorch import AISParallelMapDataset as Reference

    bucket = dev_cluster.client().bucket(bucket_name)
    reference = Reference(bucket, None, 2)
    dataset = AISParallelMapDataset(bucket, None, 2, cache=tmp_path / "cache")
    assert len(dataset) == len(reference) == len(objects)
    assert dataset.num_workers == 2
    for index in (0, 57):
        name, buffer = reference[index]
        with buffer:
            assert (name, buffer.tobytes()) == (dataset[index][0], dataset[index][1].tobytes())
    found = read_epoch(dataset, workers, method)
    assert [(name, bytes(buffer.buf)) for name, buffer in found] == list(objects.items())
    assert all(buffer.buf.readonly and len(buffer) == len(objects[name]) for name, buffer in found)
    large = [buffer.view for _, buffer in found if len(buffer) >= 1024]
    assert all(hasattr(view.base, "segment") for view in large)


def test_a_buffer_is_closed_copied_and_collated(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    dataset = AISParallelMapDataset(bucket, cache=tmp_path / "cache")
    with dataset[3][1] as buffer:
        assert pickle.loads(pickle.dumps(buffer)).tobytes() == buffer.tobytes() == objects["o004"]
    buffer.close()
    with pytest.raises(ValueError, match="closed"):
        buffer.tobytes()
    names, buffers = next(iter(DataLoader(dataset, batch_size=4)))
    assert [len(one) for one in buffers] == [len(objects[name]) for name in names]
    assert len(dataset[:5]) == 5
    assert type(AISParallelMapDataset(bucket, cache=tmp_path / "cache", content="view")[0][1]) is View
    assert type(AISParallelMapDataset(bucket, cache=tmp_path / "cache", content="bytes")[0][1]) is bytes


def test_transformed_objects_have_samples_of_their_own(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    dev_cluster.add_etl("turn", "reverse")
    client = dev_cluster.client()
    bucket = client.bucket(bucket_name)
    expected = {name: content[::-1] for name, content in objects.items()}
    with Cache(tmp_path / "cache") as cache:
        plain = dict(AISBatchIterDataset(bucket, client, cache=cache))
        assert dict(AISBatchIterDataset(bucket, client, cache=cache, etl_name="turn")) == expected
        buffers = AISParallelMapDataset(bucket, cache=cache, etl_name="turn")
        dev_cluster.reset_requests()
        assert {name: buffer.tobytes() for name, buffer in buffers} == expected
        assert dev_cluster.requests()["GET"] == 0
        assert dict(AISParallelMapDataset(bucket, cache=cache, content="bytes")) == plain == objects
