"""webdataset with its cache, over HTTP from the cluster."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.contenders import Contender, Place, bucket


def make(place: Place) -> Any:
    import webdataset as wds

    names = sorted(entry.name for entry in bucket(place).list_all_objects())
    urls = [f"pipe:curl -sfL {place.endpoint}/v1/objects/{place.bucket}/{name}" for name in names]
    directory = os.path.join(place.directory, "webdataset")
    os.makedirs(directory, exist_ok=True)
    dataset = wds.WebDataset(urls, cache_dir=directory, shardshuffle=False)
    return dataset.to_tuple("__key__", "jpg").map(_with_extension)


def _with_extension(sample: Any) -> Any:
    return sample[0], {"jpg": sample[1]}


CONTENDERS = {"webdataset": Contender("webdataset with cache_dir", make, needs=("webdataset",))}
