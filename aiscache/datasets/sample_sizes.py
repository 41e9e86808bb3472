"""The sizes of a dataset's samples in bytes, as one column: `sample_sizes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from aiscache.datasets.split import Order
from aiscache.errors import ConfigError


def sample_sizes(dataset: Any) -> Order:
    """Return the size of each sample of a dataset of ours, of `aistore.pytorch`, or of subsets and chains of them.

    They are those of the listing: of the objects as they lie in the cluster, before any ETL. No request is made.
    ConfigError for a dataset that does not tell, or where the listing did not.
    """
    if isinstance(dataset, Subset):
        return sample_sizes(dataset.dataset)[np.asarray(dataset.indices, np.int64)]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([sample_sizes(part) for part in dataset.datasets])
    if hasattr(dataset, "sample_sizes"):
        sizes: Order = dataset.sample_sizes()
    elif hasattr(dataset, "manifest"):
        sizes = dataset.manifest.sizes
    elif hasattr(dataset, "get_obj_list"):
        sizes = np.array([int(one.props_cached.size) for one in dataset.get_obj_list()], np.int64)
    else:
        raise ConfigError(f"{type(dataset).__name__} does not tell the sizes of its samples; give it sample_sizes()")
    unknown = int((sizes < 0).sum())
    if unknown:
        raise ConfigError(
            f"the listing of {type(dataset).__name__} lacks the sizes of {unknown:,} of {len(sizes):,} objects"
        )
    return sizes
