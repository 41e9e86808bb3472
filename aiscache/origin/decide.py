"""What to do after a request ended: from a task and an outcome to the next step, without I/O.

A target asked directly is believed only when it delivers. Whatever else it says (404: the wrong target and a missing
object look the same; another version: an old owner in maintenance serves stale bytes), the proxy is asked once more
before an error is made of it. Where the proxy was asked first, it is asked twice: during a rebalance it too sends us to
targets that do not have the object yet, or have an old version of it.
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
from aiscache.origin.certificates import certificate_advice
from aiscache.origin.failures import BAD_CHECKSUM_CODE, Refusal, error_of
from aiscache.origin.outcome import Arrived, Broken, Changed, Corrupt, Outcome, Redirected, Refused
from aiscache.origin.policy import RetryPolicy
from aiscache.origin.task import MAP, Task

MAX_HOPS = 5
_LOOK = "check that the cluster is up and that this machine may reach its targets"
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


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides by the user's retry policy, and words the errors; no I/O, no clock."""

    policy: RetryPolicy
    endpoint: str

    def decide(self, task: Task, outcome: Outcome) -> Step:
        """Return the next step, and count the failure in the task."""
        match outcome:
            case Arrived():
                return Done()
            case Redirected(url):
                return self._follow(task, url)
            case Refused(refusal):
                return self._refused(task, refusal)
            case Broken():
                return self._broken(task, outcome)
            case Corrupt():
                return self._corrupt(task, outcome)
            case Changed(difference):
                return self._changed(task, difference)

    def _follow(self, task: Task, url: str) -> Step:
        task.hops += 1
        scheme, first = urlsplit(url).scheme, urlsplit(self.endpoint).scheme
        if task.hops <= MAX_HOPS and scheme in (first, "https"):
            return Follow(url)
        why = "too many redirects" if task.hops > MAX_HOPS else f"a redirect from {first} to {scheme}"
        text = f"{task.label}: {why} by the cluster at {self.endpoint}, last to {url!r}"
        return Failed(OriginError(text, **_details(task)))

    def _refused(self, task: Task, refusal: Refusal) -> Step:
        if refusal.code == BAD_CHECKSUM_CODE:
            return self._corrupt(task, Corrupt("its own", "that of its metadata", refusal.message))
        delay_s = None
        if refusal.status in self.policy.statuses:
            task.refusals += 1
            delay_s = self.policy.status_delay_s(task.refusals, retry_after_s=refusal.retry_after_s)
        elif refusal.status == _LOCKED:
            task.network_failures += 1
            delay_s = self.policy.network_delay_s(task.network_failures)
        elif task.direct or (refusal.status == 404 and task.denials == 0):
            task.denials += 1
            return AskProxy(stale_map=task.direct)
        if delay_s is not None:
            return AskProxy(delay_s)
        if task.verb == MAP and refusal.status not in (401, 403):
            text = f"{self.endpoint} answered HTTP {refusal.status} when asked for its cluster map; is it an AIS proxy?"
            return Failed(OriginError(f"{text} {refusal.message}".rstrip(), status=refusal.status))
        return Failed(error_of(refusal, task.ref, endpoint=self.endpoint, tries=task.attempts))

    def _broken(self, task: Task, outcome: Broken) -> Step:
        task.network_failures += 1
        delay_s = None if outcome.final else self.policy.network_delay_s(task.network_failures)
        if delay_s is not None:
            # The proxy is another server: the first time there is nothing to wait for.
            return AskProxy(0.0 if task.direct else delay_s, stale_map=True)
        kind = OriginTimeoutError if outcome.timed_out else UnreachableError
        tries = f"{task.attempts} tries" if task.attempts != 1 else "1 try"
        advice = certificate_advice(outcome.message) if outcome.final else _LOOK
        text = (
            f"{task.label} could not be read from the cluster at {self.endpoint} in {tries}: "
            f"{outcome.message} (asked {task.node}){'; ' if advice else ''}{advice}"
        )
        return Failed(kind(text, **_details(task)))

    def _corrupt(self, task: Task, outcome: Corrupt) -> Step:
        task.doubts += 1
        if task.doubts <= 1:
            return AskProxy()
        text = (
            f"{task.label} is damaged: {task.node} sent bytes with {outcome.kind} checksum {outcome.found}, and "
            f"{outcome.expected} as the checksum they should have; fetched twice from the cluster at {self.endpoint}. "
            "Restore it from its source"
        )
        details = _details(task)
        return Failed(ChecksumMismatchError(text, expected=outcome.expected, found=outcome.found, **details))

    def _changed(self, task: Task, difference: str) -> Step:
        task.denials += 1
        if task.direct or task.denials == 1:
            return AskProxy(stale_map=task.direct)
        text = (
            f"{task.label} changed on the cluster at {self.endpoint} since it was listed: {difference}; "
            "make the dataset anew to read the new version"
        )
        return Failed(ObjectChangedError(text, **_details(task)))


def _details(task: Task) -> dict[str, str]:
    return {"url": task.label, "target": task.node}
