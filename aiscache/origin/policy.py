"""How often and when to try again: what the user told the SDK, in a form that crosses processes.

The SDK has two policies: `http_retry` (urllib3, by status) and `network_retry` (tenacity, by exception). The second is
dropped when its client is pickled, so both are read here once, into plain numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

# A stop condition without a count (stop_never, stop_after_delay) becomes this many tries: nothing waits forever.
MAX_ATTEMPTS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again; the defaults are `RetryConfig.default()` of aistore 2.0.

    An answer with a status in `statuses` is asked for again `status_retries` times, after backoff_s, 2 x backoff_s, ...
    up to `backoff_max_s`, or after what `Retry-After` says. A broken or silent connection is tried
    `network_attempts` times in all, with a random wait out of `network_waits_s[n]` = (low, high) before try n + 2.
    """

    statuses: tuple[int, ...] = (429, 500, 502, 503, 504)
    status_retries: int = 5
    backoff_s: float = 3.0
    backoff_max_s: float = 120.0
    respect_retry_after: bool = True
    network_attempts: int = 7
    network_waits_s: tuple[tuple[float, float], ...] = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (1, 30))

    def status_delay_s(self, failures: int, *, retry_after_s: float | None = None) -> float | None:
        """Seconds before asking again after the n-th bad status of one object; None to give up."""
        if failures > self.status_retries:
            return None
        if retry_after_s is not None and self.respect_retry_after:
            return min(retry_after_s, self.backoff_max_s)
        return float(min(self.backoff_s * 2.0 ** (failures - 1), self.backoff_max_s))

    def network_delay_s(self, failures: int) -> float | None:
        """Seconds before the next try after the n-th network failure of one object; None to give up."""
        if failures >= self.network_attempts:
            return None
        if not self.network_waits_s:
            return 0.0
        low, high = self.network_waits_s[min(failures, len(self.network_waits_s)) - 1]
        return random.uniform(low, high)

    def budget_s(self, attempt_s: float) -> float:
        """All the time that one object may take when each attempt may stay silent for `attempt_s`."""
        waits = (
            [self.network_waits_s[min(n, len(self.network_waits_s) - 1)][1] for n in range(self.network_attempts - 1)]
            if self.network_waits_s
            else []
        )
        backoffs = [self.status_delay_s(n) or 0.0 for n in range(1, self.status_retries + 1)]
        return sum(waits) + sum(backoffs) + attempt_s * (self.network_attempts + self.status_retries)


def policy_of(http_retry: Any, network_retry: Any) -> RetryPolicy:
    """Return the policy that says the same as an `urllib3.Retry` and a `tenacity.Retrying` (either may be None).

    What cannot be expressed, such as a wait that is a function of the user's own, becomes the default.
    """
    fields: dict[str, Any] = {}
    if http_retry is not None:
        total = http_retry.total
        status = getattr(http_retry, "status", None)
        retries = total if status is None else status if total is None else min(total, status)
        fields.update(
            statuses=tuple(sorted(int(code) for code in http_retry.status_forcelist or ())),
            status_retries=int(retries) if retries else 0,
            backoff_s=float(http_retry.backoff_factor),
            backoff_max_s=float(getattr(http_retry, "backoff_max", 120.0)),
            respect_retry_after=bool(http_retry.respect_retry_after_header),
        )
    if network_retry is not None:
        attempts = _attempts(network_retry.stop)
        fields.update(network_attempts=attempts)
        waits = [_wait(network_retry.wait, n) for n in range(1, attempts)]
        if None not in waits:
            fields.update(network_waits_s=tuple(waits))
    return RetryPolicy(**fields)


def _attempts(stop: Any) -> int:
    """Tries that a tenacity stop condition allows; `stop_any` is the least of its parts."""
    if hasattr(stop, "max_attempt_number"):
        return max(1, min(int(stop.max_attempt_number), MAX_ATTEMPTS))
    if hasattr(stop, "stops"):
        counts = [_attempts(part) for part in stop.stops]
        return min(counts) if type(stop).__name__ == "stop_any" else max(counts)
    return MAX_ATTEMPTS


def _wait(wait: Any, attempt: int) -> tuple[float, float] | None:
    """The (low, high) seconds that a tenacity wait takes after try `attempt`, by tenacity's own formulas."""
    name = type(wait).__name__
    if name in ("wait_random_exponential", "wait_full_jitter", "wait_exponential"):
        high = min(float(wait.multiplier) * float(wait.exp_base) ** (attempt - 1), float(wait.max))
        high = max(high, float(wait.min), 0.0)
        return (high if name == "wait_exponential" else min(float(wait.min), high)), high
    if name in ("wait_fixed", "wait_none"):
        return float(wait.wait_fixed), float(wait.wait_fixed)
    if name == "wait_random":
        return float(wait.wait_random_min), float(wait.wait_random_max)
    if name == "wait_incrementing":
        value = max(0.0, min(float(wait.start) + float(wait.increment) * (attempt - 1), float(wait.max)))
        return value, value
    if name == "wait_combine":
        parts = [_wait(part, attempt) for part in wait.wait_funcs]
        known = [part for part in parts if part is not None]
        return (sum(low for low, _ in known), sum(high for _, high in known)) if len(known) == len(parts) else None
    if name == "wait_chain":
        return _wait(wait.strategies[min(attempt, len(wait.strategies)) - 1], attempt)
    return None
