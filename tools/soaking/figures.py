"""`Figures`: what was done and seen in a run, and the report of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from aiscache.settings import format_size


@dataclass
class Peak:
    """The most bytes that were seen somewhere, and how many there may be at most."""

    most: int = 0
    bound: int = 0


@dataclass
class Held:
    """What the process that lives from the first round to the last holds while it is at rest."""

    files: int
    threads: int
    pss_bytes: int


@dataclass
class Figures:
    """Counts of one run. `violations` are the broken promises, one sentence each."""

    command: str
    seed: int
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    rounds: int = 0
    participants: int = 0
    acts: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    bytes: int = 0
    slowest_read_s: float = 0.0
    read_bound_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    overwritten: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    gets: int = 0
    filled_objects: int = 0
    fill_gets: int = 0
    cache: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    peaks: dict[str, Peak] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def broken(self, violation: str) -> None:
        """Note a broken promise, and say so at once."""
        at = f"{time.monotonic() - self.began:.1f} s, round {self.rounds}: {violation}"
        if len(self.violations) < 100:
            self.violations.append(at)
        print(f"VIOLATION at {at}", flush=True)

    def peak(self, name: str, found: int, bound: int) -> bool:
        """Note how much lies somewhere; False if it is more than may be."""
        peak = self.peaks.setdefault(name, Peak())
        if found > peak.most:
            peak.most, peak.bound = found, bound
        return found <= bound

    def asdict(self) -> dict[str, Any]:
        plain = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        plain["peaks"] = {name: asdict(peak) for name, peak in self.peaks.items()}
        plain["held"] = [asdict(held) for held in self.held]
        del plain["began"]
        return plain

    def report(self) -> str:
        """Return the figures as a Markdown table, and the violations."""
        cache = self.cache
        rows = {
            "time": f"{self.seconds:.0f} s, {self.rounds} rounds, seed {self.seed}",
            "processes started": f"{self.participants:,} participants, with DataLoader workers and pools of their own",
            "acts": f"{self.acts.total():,}: {_counts(self.acts)}",
            "reads checked": f"{self.reads:,}, {format_size(self.bytes)}",
            "hits, misses": f"{cache.get('hits', 0):,.0f} and {cache.get('misses', 0):,.0f}",
            "fetched, staged, not kept": " / ".join(
                f"{cache.get(name, 0):,.0f}" for name in ("fetched_objects", "staged", "rejected")
            ),
            "evicted": f"{cache.get('evicted_objects', 0):,.0f}",
            "fallbacks": f"{cache.get('fallbacks', 0):,.0f}",
            "checksum failures in the cache": f"{cache.get('checksum_failures', 0):,.0f}",
            "GETs": f"{self.gets:,}",
            "objects overwritten": f"{self.overwritten:,}",
            "origin faults": f"{self.troubles.total():,}: {_counts(self.troubles)}",
            "SIGKILL": f"{self.kills.total():,}: {_counts(self.kills)}",
            "SIGSTOP": f"{self.stops.total():,}: {_counts(self.stops)}",
            "errors that readers saw": f"{self.errors.total():,}: {_counts(self.errors)}",
            "longest read": f"{self.slowest_read_s:.1f} s of {self.read_bound_s:.0f} s that it may take",
            "filled by four at once, without faults": f"{self.filled_objects:,} objects with {self.fill_gets:,} GETs",
        }
        for name, peak in self.peaks.items():
            rows[f"most bytes, {name}"] = f"{format_size(peak.most)} of {format_size(peak.bound)}"
        rows["looked at the disk"] = f"{self.looks:,} times"
        if self.held:
            first, last = self.held[0], self.held[-1]
            rows["held at rest, after the first round and after the last"] = (
                f"{first.files} and {last.files} files, {first.threads} and {last.threads} threads, "
                f"{format_size(first.pss_bytes)} and {format_size(last.pss_bytes)} (PSS)"
            )
        rows["violations"] = str(len(self.violations))
        lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
        return "\n".join([*lines, *(f"VIOLATION at {violation}" for violation in self.violations)])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())
