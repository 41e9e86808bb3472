"""`./tools/bench`: measures aiscache beside what users would pick instead, on one machine.

    ./tools/bench                           everything, 3 repeats; more than an hour on 2 cores
    ./tools/bench --quick                   a tenth of the data, 1 repeat: to see that it runs
    ./tools/bench --only warm shards        some of it
    ./tools/bench --endpoint http://host:51080     on a real cluster: buckets are made there, and removed
    ./tools/bench --json all.json           keep all figures; the page and the pictures can be made of them again:
    ./tools/bench --markdown all.json --plots docs/images

Tables are Markdown: medians of the repeats, smallest and largest in brackets. Contenders take turns; every one of them
must see all bytes. CPU is that of the process and its DataLoader workers, not of the server. The dev server runs on the
same machine, so ratios matter, not figures.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from aiscache.devserver import DevCluster
from benchmarks import plots, report
from benchmarks.bench import Bench
from benchmarks.environment import environment, told
from benchmarks.suites import SUITES


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    if arguments.markdown:
        print(report.markdown(arguments.markdown))
        _draw(arguments, [table for path in arguments.markdown for table in report.read(path)[1]])
        return
    where = environment() | {"how": _how(arguments)}
    print(f"{told(where)}. {where['how']}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was made in shared memory is removed then, too
    with _cluster(arguments) as cluster:
        endpoint = arguments.endpoint if cluster is None else cluster.endpoint
        bench = Bench(
            cluster, endpoint=endpoint, repeats=_repeats(arguments), scale=_scale(arguments), disk=arguments.disk
        )
        try:
            for name in arguments.only:
                with bench.suite(name):
                    SUITES[name](bench)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        finally:
            bench.close()
            if arguments.json:
                report.write(arguments.json, bench.tables, where)
    _draw(arguments, bench.tables)


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument("--disk", default="/var/tmp", help="a directory on a disk, for large caches (/var/tmp)")
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats")
    parser.add_argument("--plots", metavar="DIRECTORY", help="draw pictures there (needs matplotlib)")
    parser.add_argument("--markdown", nargs="+", metavar="FILE", help="measure nothing: print what --json wrote")
    return parser


def _repeats(arguments: argparse.Namespace) -> int:
    return arguments.repeats or (1 if arguments.quick else 3)


def _scale(arguments: argparse.Namespace) -> float:
    return arguments.scale or (0.1 if arguments.quick else 1.0)


def _how(arguments: argparse.Namespace) -> str:
    """Tell what the figures are of."""
    server = f"the cluster at {arguments.endpoint}" if arguments.endpoint else "the dev server on the same machine"
    repeats, scale = _repeats(arguments), _scale(arguments)
    data = "" if scale == 1 else f", {scale:g} times the data"
    return f"{repeats} repeat{'s' if repeats > 1 else ''}{data}, with {server}"


def _draw(arguments: argparse.Namespace, tables: Sequence[Any]) -> None:
    if arguments.plots:
        for path in plots.draw(arguments.plots, tables):
            print(f"drew {path}")


def _cluster(arguments: argparse.Namespace) -> AbstractContextManager[DevCluster | None]:
    return nullcontext() if arguments.endpoint else DevCluster(targets=arguments.targets)


if __name__ == "__main__":
    main()
