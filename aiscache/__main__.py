"""`python -m aiscache`: the command line."""

import sys

from aiscache.cli import main

sys.exit(main())
