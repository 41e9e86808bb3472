"""The tables of the suite, by name: each is a function of the bench."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.suites import limits, prefetching, putting, reading, scaling, startup, warming

SUITES: dict[str, Callable[[Bench], None]] = {
    "single": reading.single,
    "warm": reading.warm,
    "cold": reading.cold,
    "small": reading.small,
    "large": reading.large,
    "shards": reading.shards,
    "put": putting.put,
    "jobs": limits.jobs,
    "half": limits.half,
    "prefetch": prefetching.loops,
    "quarter": prefetching.quarter,
    "ranks": prefetching.ranks,
    "first": prefetching.first,
    "warming": warming.warming,
    "startup": startup.startup,
    "million": startup.million,
    "scaling": scaling.scaling,
}
