"""A cache's figures in the text format of Prometheus, for the node exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from aiscache.stats import MEANINGS

if TYPE_CHECKING:
    from pathlib import Path

    from aiscache.cli.look import Look
    from aiscache.stats import CacheStats

_BY_TIER = {"hits": "reads answered from the cache", "hit_bytes": "payload bytes of aiscache_hits_total"}
_SPECIAL = ("hits_memory", "hits_disk", "bytes_memory", "bytes_disk", "stall_ns")

Sample = tuple[dict[str, str], float]


def exposition(path: Path, look: Look | None) -> str:
    """Return the lines; of an unnamed cache that nobody uses only that it is not there."""
    cache = {"cache": str(path)}
    lines = [*_metric("exists", "whether the cache is there", "gauge", [(cache, look is not None)])]
    if look is not None:
        lines += _gauges(cache, look)
        lines += _counters(cache, look.counters)
    return "\n".join(lines) + "\n"


def _gauges(cache: dict[str, str], look: Look) -> Iterator[str]:
    yield from _metric("objects", "objects in the cache", "gauge", [(cache, look.objects)])
    yield from _metric("index_bytes", "bytes that index and listings take", "gauge", [(cache, look.index_bytes)])
    for name, meaning, attribute in (
        ("used_bytes", "bytes reserved in a tier, those in flight included", "used_bytes"),
        ("capacity_bytes", "most bytes that a tier may take", "capacity_bytes"),
        ("segments", "files that hold a tier's objects", "segments"),
    ):
        samples = [({**cache, "tier": tier.name}, getattr(tier, attribute)) for tier in look.tiers]
        yield from _metric(name, meaning, "gauge", samples)


def _counters(cache: dict[str, str], counters: CacheStats) -> Iterator[str]:
    memory, disk = {**cache, "tier": "memory"}, {**cache, "tier": "disk"}
    by_tier = {
        "hits": [(memory, counters.hits_memory), (disk, counters.hits_disk)],
        "hit_bytes": [(memory, counters.bytes_memory), (disk, counters.bytes_disk)],
    }
    for name, meaning in _BY_TIER.items():
        yield from _metric(f"{name}_total", meaning, "counter", by_tier[name])
    for name, meaning in MEANINGS.items():
        if name not in _SPECIAL:
            yield from _metric(f"{name}_total", meaning, "counter", [(cache, getattr(counters, name))])
    stalled = MEANINGS["stall_ns"].removesuffix(", in nanoseconds")
    yield from _metric("stall_seconds_total", stalled, "counter", [(cache, counters.stall_s)])


def _metric(name: str, meaning: str, kind: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP aiscache_{name} {meaning[0].upper()}{meaning[1:]}."
    yield f"# TYPE aiscache_{name} {kind}"
    for labels, value in samples:
        text = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels.items())
        yield (
            f"aiscache_{name}{{{text}}} {float(value)!r}"
            if isinstance(value, float)
            else (f"aiscache_{name}{{{text}}} {int(value)}")
        )


def _escaped(text: str) -> str:
    printable = text.encode("utf-8", "backslashreplace").decode()
    return printable.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
