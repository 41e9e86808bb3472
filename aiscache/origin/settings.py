"""What makes a connection to a cluster: `OriginSettings`, read from the SDK's client, small enough to send anywhere."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from aiscache.errors import ConfigError
from aiscache.origin.policy import RetryPolicy, policy_of

# A user may switch a timeout off; then this many seconds without a byte still end an attempt.
NO_TIMEOUT_S = 600.0
LEAST_RATE = 4096  # bytes per second: a transfer slower than this, retries included, is stuck


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSettings:
    """All that an origin is made from, and all of it that crosses to another process. The token never shows in a repr.

    `endpoint` is the URL without `/v1`. `ca` is a file or directory of trusted certificates, "" for the usual ones.
    `client_cert` is a PEM file with both parts, or certificate and key.
    """

    endpoint: str
    token: str = field(default="", repr=False)
    verify: bool = True
    ca: str = ""
    client_cert: tuple[str, ...] = ()
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 20.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @classmethod
    def from_client(cls, client: Any) -> OriginSettings:
        """Read the settings of an `aistore.sdk.Client` or of its `RequestClient`, environment included.

        ConfigError if `client` is neither. Makes no request.
        """
        request_client = client.cluster().client if hasattr(client, "cluster") else client
        try:
            manager = request_client.session_manager
            session = manager.session
            base_url, timeout = request_client.base_url, request_client.timeout
        except AttributeError as error:
            raise ConfigError(f"{type(client).__name__} is not an aistore client: {error}") from error
        connect_s, read_s = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        verify, ca = _trust(session.verify)
        cert = session.cert or ()
        retry_config = getattr(getattr(request_client, "_retry_manager", None), "retry_config", None)
        return cls(
            endpoint=base_url.removesuffix("/").removesuffix("/v1").rstrip("/"),
            token=request_client.token or "",
            verify=verify,
            ca=ca,
            client_cert=(cert,) if isinstance(cert, str) else tuple(cert),
            connect_timeout_s=NO_TIMEOUT_S if connect_s is None else float(connect_s),
            read_timeout_s=NO_TIMEOUT_S if read_s is None else float(read_s),
            retry=policy_of(manager.retry, getattr(retry_config, "network_retry", None)),
        )

    @property
    def attempt_s(self) -> float:
        """How long one attempt may stay without a byte."""
        return self.connect_timeout_s + self.read_timeout_s


def _trust(verify: bool | str) -> tuple[bool, str]:
    """Return (verify, ca) as `requests` would take it, with the environment variables that it reads."""
    if isinstance(verify, str):
        return True, verify
    if not verify:
        return False, ""
    return True, os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
