"""Reaching a cluster with the patience of somebody who waits for an answer at a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

_STATUS_RETRIES = 2
_NETWORK_WAITS_S = ((0.5, 1.0), (1.0, 2.0))


def client_of(endpoint: str) -> Any:
    """Return an SDK client of a cluster that answers; UnreachableError and its kin after some seconds if it does not.

    Only this first question is impatient: the client has the SDK's usual retries, which wait for minutes.
    """
    from aistore.sdk import Client

    from aiscache.origin import Origin, OriginSettings

    client = Client(endpoint)
    settings = OriginSettings.from_client(client)
    impatient = replace(
        settings.retry,
        status_retries=_STATUS_RETRIES,
        backoff_s=0.5,
        network_attempts=len(_NETWORK_WAITS_S) + 1,
        network_waits_s=_NETWORK_WAITS_S,
    )
    origin = Origin(replace(settings, retry=impatient))
    try:
        origin.cluster_map()
    finally:
        origin.close()
    return client
