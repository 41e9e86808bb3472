"""The conductor: a cluster, a crowd, rounds of storm and reckoning, and a report."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from aiscache.devserver import DevCluster
from aiscache.settings import format_size, parse_size
from aiscache.store.tiers import memory_tier
from tools.soaking.crowd import Crowd
from tools.soaking.figures import Figures
from tools.soaking.job import Job
from tools.soaking.ledger import Ledger
from tools.soaking.moments import Moments
from tools.soaking.objects import MEAN, names
from tools.soaking.reckoning import reckon
from tools.soaking.storm import Storm, put

_ROUND_S = 40.0
_TARGETS = 3
_LONG_STOP_EVERY = 3  # rounds
_MOST_FILES_MORE = 4
_MOST_BYTES_MORE = 96 << 20  # up to 64 MB of freed memory are kept for the next batch


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 1 if a promise was broken."""
    arguments = _parse(argv)
    seconds = arguments.seconds + 60 * arguments.minutes or 60.0
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 30)
    figures = Figures(command=" ".join(["./tools/soak", *(sys.argv[1:] if argv is None else argv)]), seed=seed)
    print(f"seed {seed}, {seconds:.0f} s", flush=True)
    with _directory(arguments.cache, figures) as folder, _interrupt() as interrupted:
        _soak(folder, arguments, seconds, figures=figures, interrupted=interrupted)
    figures.seconds = time.monotonic() - figures.began
    print(figures.report(), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures.asdict(), indent=1))
    return 1 if figures.violations else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./tools/soak",
        description="Random readers, trainers, writers, killers and faults over a small cache; checks the promises.",
        epilog="Exit codes: 0 all promises kept, 1 some broken (each is named), 2 wrong usage. Ctrl-C ends it early.",
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="how long (60 s, if --minutes is not given either)")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, help="of all that is done at random; when is up to the machine")
    parser.add_argument(
        "--cache", metavar="DIR", help="where, on a disk (a new directory in the one for temporary files)"
    )
    parser.add_argument(
        "--capacity", default="12MB", help="of the cache on disk (12MB); its memory tier has a third more"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    return parser.parse_args(argv)


def _soak(
    folder: Path,
    arguments: argparse.Namespace,
    seconds: float,
    *,
    figures: Figures,
    interrupted: Callable[[], bool],
) -> None:
    chance = random.Random(figures.seed)
    capacity = parse_size(arguments.capacity, name="--capacity")
    memory = capacity // 3
    objects = names(2 * (capacity + memory) // MEAN)
    ledger = Ledger.create(folder / "ledger", count=len(objects))
    moments = Moments.create(folder / "moments")
    print(f"{len(objects)} objects, capacity {format_size(capacity)} and {format_size(memory)} in memory", flush=True)
    with DevCluster(targets=_TARGETS) as cluster, (folder / "log").open("ab") as log:
        put(cluster, ledger, objects)
        job = Job(
            role="", seed=0, slot=0, endpoint=cluster.endpoint, cache=str(folder / "cache"), capacity=capacity,
            memory=memory, lookahead=max(1 << 20, capacity // 6), ledger=str(folder / "ledger"),
            moments=str(folder / "moments"),
        )  # fmt: skip
        with closing(Crowd(job, figures=figures, moments=moments, log=log)) as crowd:
            witness = crowd.start("witness", chance.randrange(1 << 30))
            storm = Storm(
                crowd, witness, cluster=cluster, job=job, ledger=ledger, names=objects, figures=figures, chance=chance
            )
            until = figures.began + seconds
            while not interrupted() and (left := until - time.monotonic()) > 0:
                figures.rounds += 1
                long_stop = figures.rounds % _LONG_STOP_EVERY == 0
                storm.rage(min(left, _ROUND_S), interrupted=interrupted, long_stop=long_stop)
                storm.calm()
                reckon(crowd, witness, cluster=cluster, job=job, figures=figures, chance=chance)
                if witness not in crowd.present:
                    break
                witness.order("go")
            _check_growth(figures)


def _check_growth(figures: Figures) -> None:
    """What a process holds at rest does not grow from the first round to the last."""
    if not figures.held:
        return
    first, last = figures.held[0], figures.held[-1]
    if (
        last.files > first.files + _MOST_FILES_MORE
        or last.threads > first.threads
        or last.pss_bytes > first.pss_bytes + _MOST_BYTES_MORE
    ):
        figures.broken(f"the witness holds more and more: {first}, later {last}")


@contextmanager
def _directory(cache: str | None, figures: Figures) -> Iterator[Path]:
    """Give a directory for all files; it goes at the end, unless there is something to look for in it."""
    folder = Path(cache or tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(memory_tier(folder / "cache"), ignore_errors=True)
        if figures.violations:
            print(f"{folder / 'log'} has what the processes said", flush=True)
        elif cache is None:
            shutil.rmtree(folder)


@contextmanager
def _interrupt() -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C, or SIGTERM, came."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: came.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
