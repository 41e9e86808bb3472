"""Samples that cross processes by reference."""

from __future__ import annotations

import copy
import io
import os
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from aiscache import AISIterDataset, AISMapDataset, Cache, View
from aiscache.datasets.reference import LEAST_BYTES, LEAST_COPIED_BYTES, CachedBytes
from aiscache.devserver import DevCluster
from aiscache.errors import CacheError
from aiscache.keys import ObjectRef
from aiscache.store import registry


@pytest.fixture
def objects(dev_cluster: DevCluster, bucket_name: str) -> dict[str, bytes]:
    made = {f"o{number:03}": os.urandom(10_000 + number) for number in range(50)}
    made |= {"p-empty": b"", "p-small": b"tiny", "p-least": os.urandom(LEAST_BYTES)}
    made |= {"p-copied": os.urandom(LEAST_COPIED_BYTES - 1), "p-referred": os.urandom(LEAST_COPIED_BYTES)}
    dev_cluster.put_many(bucket_name, made)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", capacity="50MB") as cache:
        yield cache


def sent(value: Any) -> bytes:
    """What a DataLoader's worker puts into the pipe."""
    return bytes(ForkingPickler.dumps(value))


def is_mapped_here(view: View) -> bool:
    return getattr(view.base, "segment", None) is not None


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", [AISMapDataset, AISIterDataset])
def test_views_of_a_worker_are_views_of_the_trainers_own_mapping(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], cache: Cache, kind: Any, method: str
) -> None:
    dataset = kind(dev_cluster.client().bucket(bucket_name), cache=cache, content="view")
    loader: Any = DataLoader(dataset, batch_size=8, num_workers=1, multiprocessing_context=method)
    samples = [sample for batch in loader for sample in zip(*batch, strict=True)]
    assert {name: bytes(view) for name, view in samples} == objects
    assert all(type(view) is View and not view.flags.writeable for _, view in samples)
    assert {name for name, view in samples if is_mapped_here(view)} == objects.keys() - {"p-empty", "p-small"}


def test_bytes_of_a_worker_arrive_as_bytes(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], cache: Cache
) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache)
    loader: Any = DataLoader(dataset, batch_size=8, num_workers=2)  # with torch's own collate
    samples = [sample for batch in loader for sample in zip(*batch, strict=True)]
    assert dict(samples) == objects
    assert {type(content) for _, content in samples} == {bytes}
    assert type(dataset[0][1]) is bytes


class InAWorker(AISMapDataset):
    """Looks at its samples where they are made."""

    def __getitem__(self, index: Any) -> Any:
        content = super().__getitem__(index)[1]
        told = sent(content)
        plain = pickle.loads(pickle.dumps(content))
        return type(content).__name__, len(content), len(told), type(plain).__name__, plain == content

    def __getitems__(self, indices: Any) -> Any:
        return [self[index] for index in indices]


def test_a_worker_sends_hundreds_of_bytes_whatever_the_size(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], cache: Cache
) -> None:
    bucket = dev_cluster.client().bucket(bucket_name)
    for content, kind, plain_kind in (("bytes", "CachedBytes", "bytes"), ("view", "View", "View")):
        dataset = InAWorker(bucket, cache=cache, content=content)
        loader: Any = DataLoader(dataset, batch_size=None, num_workers=1)
        for name, size, told, plain, equal in list(loader)[:50]:
            assert (name, plain) == (kind, plain_kind)
            assert told < 3000 < size
            assert np.all(equal)


def test_other_pickling_carries_the_bytes(cache: Cache) -> None:
    ref = ObjectRef(cluster="c", provider="ais", bucket="b", name="n")
    data = os.urandom(5000)
    cache.put(ref, data)
    view = cache.read(ref)
    file = io.BytesIO()
    torch.save(view, file)
    file.seek(0)
    copies = [pickle.loads(pickle.dumps(view)), copy.deepcopy(view), copy.copy(view), view.copy()]
    copies.append(torch.load(file, weights_only=False))
    del view
    cache.clear()
    assert [bytes(one) for one in copies] == [data] * 5
    assert not any(map(is_mapped_here, copies))


def test_parts_of_a_view_and_what_is_not_in_one_piece(cache: Cache) -> None:
    ref = ObjectRef(cluster="c", provider="ais", bucket="b", name="n")
    data = os.urandom(9000)
    cache.put(ref, data)
    view = cache.read(ref)
    part = pickle.loads(sent(view[1000:6000][500:]))
    assert bytes(part) == data[1500:6000]
    assert is_mapped_here(part)
    strided = pickle.loads(sent(view[::2]))
    assert bytes(strided) == data[::2]
    assert not is_mapped_here(strided)


def test_a_view_whose_segment_was_removed_is_read_again_or_says_so(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], cache: Cache
) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache, content="view")
    name, view = dataset[7]
    alone = sent(view)
    view.sample = (dataset._reader, 7)
    with_sample = sent(view)
    del view
    cache.clear()
    with pytest.raises(CacheError, match="read the object again"):
        pickle.loads(alone)
    dev_cluster.reset_requests()
    assert bytes(pickle.loads(with_sample)) == objects[name]
    assert dev_cluster.requests()["GET"] == 1


def test_reading_a_sample_again_leaves_no_cache_open(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], tmp_path: Path
) -> None:
    path = str(tmp_path / "cache")
    with Cache(path, capacity="50MB") as cache:
        dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache, content="view")
        name, view = dataset[7]
        view.sample = (dataset._reader, 7)
        message = sent(view)
        del view
        cache.clear()
        assert bytes(pickle.loads(message)) == objects[name]
        assert registry._registry.handles[path] == 1
    assert path not in registry._registry.stores


def test_holes_punched_meanwhile_are_never_seen(
    dev_cluster: DevCluster, bucket_name: str, objects: dict[str, bytes], cache: Cache
) -> None:
    dataset = AISMapDataset(dev_cluster.client().bucket(bucket_name), cache=cache, content="view")
    views = [view for _, view in dataset.__getitems__(range(50))]
    messages = []
    for row, view in enumerate(views):
        view.sample = (dataset._reader, row)
        messages.append(sent(view))
    del views, view
    assert cache.evict(bucket_name, "o00").objects == 10  # from the middle of a segment that stays
    assert [bytes(pickle.loads(message)) for message in messages] == list(objects.values())[:50]


def test_cached_bytes_are_bytes(cache: Cache) -> None:
    content = CachedBytes(b"abc")
    assert isinstance(content, bytes)
    assert content == b"abc"
    assert {content: 1}[b"abc"] == 1
