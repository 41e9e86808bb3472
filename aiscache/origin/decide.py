"""What to do after a request ended: a pure function from a task and an outcome to the next step.

A target asked directly is believed only when it delivers. Whatever else it says (404: the wrong target and a missing
object look the same; another version: an old owner in maintenance serves stale bytes), the proxy is asked once more
before an error is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from aiscache.errors import (
    ChecksumMismatchError,
    ObjectChangedError,
    OriginError,
    OriginTimeoutError,
    UnreachableError,
)
from aiscache.origin.failures import BAD_CHECKSUM_CODE, Refusal, error_of
from aiscache.origin.outcome import Arrived, Broken, Changed, Corrupt, Outcome, Redirected, Refused
from aiscache.origin.policy import RetryPolicy
from aiscache.origin.task import MAP, Task

MAX_HOPS = 5
_LOCKED = 409  # AIS fetches the object from its cloud at this moment (the SDK's ErrGETConflict)


@dataclass(frozen=True, slots=True)
class Done:
    """The task has ended, well."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task has ended with an error."""

    error: OriginError


@dataclass(frozen=True, slots=True)
class Follow:
    """Go where the proxy says, at once."""

    url: str


@dataclass(frozen=True, slots=True)
class AskProxy:
    """Ask the proxy after a while. `stale_map`: the cluster map may be to blame."""

    delay_s: float = 0.0
    stale_map: bool = False


Step = Done | Failed | Follow | AskProxy


def decide(task: Task, outcome: Outcome, *, policy: RetryPolicy, endpoint: str) -> Step:
    """Return the next step and count the failure in the task; no I/O, no clock."""
    match outcome:
        case Arrived():
            return Done()
        case Redirected(url):
            return _follow(task, url, endpoint)
        case Refused(refusal):
            return _refused(task, refusal, policy, endpoint)
        case Broken():
            return _broken(task, outcome, policy, endpoint)
        case Corrupt(kind, expected, found):
            return _corrupt(task, kind, expected, found, endpoint)
        case Changed(difference):
            return _changed(task, difference, endpoint)


def _follow(task: Task, url: str, endpoint: str) -> Step:
    task.hops += 1
    scheme, first = urlsplit(url).scheme, urlsplit(endpoint).scheme
    if task.hops <= MAX_HOPS and scheme in (first, "https"):
        return Follow(url)
    why = "too many redirects" if task.hops > MAX_HOPS else f"a redirect from {first} to {scheme}"
    return Failed(OriginError(f"{task.label}: {why} by the cluster at {endpoint}, last to {url!r}", **_details(task)))


def _refused(task: Task, refusal: Refusal, policy: RetryPolicy, endpoint: str) -> Step:
    if refusal.code == BAD_CHECKSUM_CODE:
        return _corrupt(task, "its", "what it stored", refusal.message, endpoint)
    if refusal.status in policy.statuses:
        task.refusals += 1
        delay_s = policy.status_delay_s(task.refusals, retry_after_s=refusal.retry_after_s)
        if delay_s is not None:
            return AskProxy(delay_s)
    elif refusal.status == _LOCKED:
        task.network_failures += 1
        delay_s = policy.network_delay_s(task.network_failures)
        if delay_s is not None:
            return AskProxy(delay_s)
    elif task.direct:
        return AskProxy(stale_map=True)
    if task.verb == MAP:
        why = f"{endpoint} answered HTTP {refusal.status} when asked for its cluster map; is it an AIS proxy?"
        if refusal.status not in (401, 403):
            return Failed(OriginError(f"{why} {refusal.message}".rstrip(), status=refusal.status, endpoint=endpoint))
    return Failed(error_of(refusal, task.ref, endpoint=endpoint, tries=task.attempts))


def _broken(task: Task, outcome: Broken, policy: RetryPolicy, endpoint: str) -> Step:
    task.network_failures += 1
    delay_s = None if outcome.final else policy.network_delay_s(task.network_failures)
    if delay_s is not None:
        # The proxy is another server: the first time there is nothing to wait for.
        return AskProxy(0.0, True) if task.direct else AskProxy(delay_s, True)
    kind = OriginTimeoutError if outcome.timed_out else UnreachableError
    tries = f"{task.attempts} tries" if task.attempts != 1 else "1 try"
    advice = "" if outcome.final else "; check that the cluster is up and that this machine may reach its targets"
    return Failed(
        kind(
            f"{task.label} could not be read from the cluster at {endpoint} in {tries}: "
            f"{outcome.message} (asked {task.node}){advice}",
            **_details(task),
        )
    )


def _corrupt(task: Task, kind: str, expected: str, found: str, endpoint: str) -> Step:
    task.doubts += 1
    if task.doubts <= 1:
        return AskProxy()
    return Failed(
        ChecksumMismatchError(
            f"{task.label} is damaged: {task.node} sent bytes with {kind} checksum {found}, and {expected} as the "
            f"checksum they should have; fetched twice from the cluster at {endpoint}. Restore it from its source",
            expected=expected,
            found=found,
            **_details(task),
        )
    )


def _changed(task: Task, difference: str, endpoint: str) -> Step:
    if task.direct:
        return AskProxy(stale_map=True)
    return Failed(
        ObjectChangedError(
            f"{task.label} changed on the cluster at {endpoint} since it was listed: {difference}; "
            "make the dataset anew to read the new version",
            **_details(task),
        )
    )


def _details(task: Task) -> dict[str, str]:
    return {"url": task.label, "target": task.node}
