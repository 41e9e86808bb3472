"""The AIS cluster as a source of bytes: list, fetch, verify."""

from aiscache.origin.clustermap import ClusterMap
from aiscache.origin.fetched import Body, Fetched, HeapBody, HeapSink, Sink
from aiscache.origin.listing import Entry
from aiscache.origin.names import BucketName
from aiscache.origin.origin import Origin
from aiscache.origin.policy import RetryPolicy
from aiscache.origin.settings import OriginSettings

__all__ = [
    "Body",
    "BucketName",
    "ClusterMap",
    "Entry",
    "Fetched",
    "HeapBody",
    "HeapSink",
    "Origin",
    "OriginSettings",
    "RetryPolicy",
    "Sink",
]
