"""`./tools/bench`: measures aiscache beside what users would pick instead, on one machine.

    ./tools/bench                           everything, 3 repeats; about an hour on 2 cores
    ./tools/bench --quick                   a tenth of the data, 1 repeat: to see that it runs
    ./tools/bench --only warm shards        some of it
    ./tools/bench --endpoint http://host:51080     on a real cluster: buckets are made there, and removed

Tables are Markdown: medians of the repeats, smallest and largest in brackets. Contenders take turns; every one of them
must see all bytes. CPU is that of the process and its DataLoader workers, not of the server. The dev server runs on the
same machine, so ratios matter, not figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path

from aiscache.devserver import DevCluster
from benchmarks.bench import Bench
from benchmarks.suites import SUITES


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="./tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SUITES, default=list(SUITES), metavar="SUITE", help=", ".join(SUITES)
    )
    parser.add_argument("--repeats", type=int, default=0, help="of each measurement (3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, one repeat")
    parser.add_argument("--scale", type=float, default=0.0, help="so many times the data (1; with --quick 0.1)")
    parser.add_argument("--targets", type=int, default=1, help="of the dev server (1)")
    parser.add_argument("--endpoint", default="", help="a real cluster instead of the dev server")
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats")
    parser.add_argument("--plots", metavar="DIRECTORY", help="where the scaling curves go (needs matplotlib)")
    arguments = parser.parse_args(argv)
    repeats = arguments.repeats or (1 if arguments.quick else 3)
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiscache", "aistore", "torch", "lmdb", "pycurl"))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, Linux {platform.release()}; {packages}")
    with _cluster(arguments) as cluster:
        endpoint = arguments.endpoint if cluster is None else cluster.endpoint
        scale = arguments.scale or (0.1 if arguments.quick else 1.0)
        bench = Bench(cluster, endpoint=endpoint, repeats=repeats, scale=scale, plots=arguments.plots or "")
        try:
            for name in arguments.only:
                with bench.directories():
                    SUITES[name](bench)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        finally:
            bench.close()
            if arguments.json:
                Path(arguments.json).write_text(json.dumps(bench.results, indent=1))


def _cluster(arguments: argparse.Namespace) -> AbstractContextManager[DevCluster | None]:
    return nullcontext() if arguments.endpoint else DevCluster(targets=arguments.targets)


if __name__ == "__main__":
    main()
