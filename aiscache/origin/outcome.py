"""How one request ended, as plain values: what the wire reports and what `decide` judges."""

from __future__ import annotations

from dataclasses import dataclass

from aiscache.origin.failures import Refusal


@dataclass(frozen=True, slots=True)
class Arrived:
    """The whole body came, and it is what the cluster vouched for."""

    def __str__(self) -> str:
        return "all arrived"


@dataclass(frozen=True, slots=True)
class Redirected:
    """Another node is to be asked."""

    url: str

    def __str__(self) -> str:
        return f"a redirect to {self.url}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A status other than 200."""

    refusal: Refusal

    def __str__(self) -> str:
        return f"HTTP {self.refusal.status} {self.refusal.message}".rstrip()


@dataclass(frozen=True, slots=True)
class Broken:
    """No whole answer: no connection, or it broke, or nothing moved."""

    message: str
    timed_out: bool = False
    final: bool = False  # trying again cannot help: a certificate is not trusted
    connected: bool = True

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Corrupt:
    """The bytes are not those that the cluster's checksum is of."""

    kind: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.kind} checksum {self.found} instead of {self.expected}"


@dataclass(frozen=True, slots=True)
class Changed:
    """The cluster has another version than the ref names."""

    difference: str

    def __str__(self) -> str:
        return self.difference


Outcome = Arrived | Redirected | Refused | Broken | Corrupt | Changed
