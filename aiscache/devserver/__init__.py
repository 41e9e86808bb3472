"""A look-alike of an AIStore cluster for tests, demos and benchmarks.

It shares no code with the rest of the package, so that client and server cannot share a bug.
"""

from aiscache.devserver.cluster import DevCluster
from aiscache.devserver.faults import parse_fault
from aiscache.devserver.serving import serve
from aiscache.devserver.tls import Tls

__all__ = ["DevCluster", "Tls", "parse_fault", "serve"]
