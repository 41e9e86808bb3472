"""`Job`: what a participant is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from aistore.sdk import Client
from aistore.sdk.retry_config import RetryConfig
from tenacity import Retrying, stop_after_attempt, wait_fixed
from urllib3 import Retry

from aiscache.fill import PATIENCE_S
from aiscache.origin import OriginSettings
from tools.soaking.objects import LARGEST

SLOWEST_BYTES_PER_S = 200_000  # of the faults that are made
BUSY_S = 20.0  # what a machine with more processes than cores may need on top


@dataclass(frozen=True)
class Job:
    role: str
    seed: int
    slot: int
    endpoint: str
    cache: str
    capacity: int
    memory: int
    lookahead: int
    ledger: str
    moments: str
    patient: bool = False

    def client(self) -> Client:
        """Return a client that gives up soon, or one with the SDK's own timeouts and retries."""
        if self.patient:
            return Client(self.endpoint)
        policy = RetryConfig(
            http_retry=Retry(total=2, backoff_factor=0.05, status_forcelist=[429, 500, 502, 503, 504]),
            network_retry=Retrying(stop=stop_after_attempt(3), wait=wait_fixed(0.05)),
        )
        return Client(self.endpoint, timeout=(1, 1), retry_config=policy)

    def longest_read_s(self) -> float:
        """Return how long a read may take: another's fetch is waited for, then there are at most two of its own."""
        settings = OriginSettings.from_client(self.client())
        attempts = settings.retry.network_attempts + settings.retry.status_retries
        fetch_s = settings.retry.budget_s(settings.attempt_s) + attempts * LARGEST / SLOWEST_BYTES_PER_S
        return PATIENCE_S + 2 * fetch_s + BUSY_S
