"""A soak test: `./tools/soak --minutes 10` uses, damages and kills around one small cache, and checks the promises.

Readers, trainers with DataLoaders of all kinds, and caretakers run as processes of their own over a cache of some MB
with a memory tier. Objects are overwritten, requests fail in many ways, processes are stopped and killed at any moment.
Ends with a table of figures; a promise that was broken is named, with the seed, and makes the exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.soaking.soak import main

if __name__ == "__main__":
    sys.exit(main())
