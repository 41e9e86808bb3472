"""`python -m aiscache.prefetch FD PARENT DIRECTORY`: the pool process. Started by `Prefetcher`, not by people."""

from __future__ import annotations

import sys

from aiscache.prefetch.pool import main

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
