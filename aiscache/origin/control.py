"""The control plane: the SDK's own request client, made from our settings, with its errors mapped to ours.

Made anew rather than kept from the user's client, so that it is the same in every process: the SDK drops a custom
network policy when its client is pickled. The import of the SDK is paid here, by those who list, not who fetch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from aiscache.errors import AuthenticationError, BucketNotFoundError, OriginError, OriginTimeoutError, UnreachableError
from aiscache.origin.certificates import certificate_advice
from aiscache.origin.settings import OriginSettings


def request_client(settings: OriginSettings) -> Any:
    """Return an `aistore.sdk.request_client.RequestClient` that does what `settings` say."""
    from aistore.sdk.request_client import RequestClient
    from aistore.sdk.retry_config import NETWORK_RETRY_EXCEPTIONS, RetryConfig
    from aistore.sdk.session_manager import SessionManager
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
    from urllib3.util.retry import Retry

    policy = settings.retry

    def wait(state: RetryCallState) -> float:
        return policy.network_delay_s(state.attempt_number) or 0.0

    def worth_a_retry(error: BaseException) -> bool:
        return isinstance(error, NETWORK_RETRY_EXCEPTIONS) and not certificate_advice(str(error))

    http_retry = Retry(
        total=policy.status_retries,
        backoff_factor=policy.backoff_s,
        status_forcelist=policy.statuses,
        connect=0,
        read=0,
        other=0,
        respect_retry_after_header=policy.respect_retry_after,
    )
    network_retry = Retrying(
        stop=stop_after_attempt(policy.network_attempts),
        wait=wait,
        retry=retry_if_exception(worth_a_retry),
        reraise=True,
    )
    sessions = SessionManager(
        retry=http_retry,
        ca_cert=settings.ca or None,
        client_cert=_certificate(settings),
        skip_verify=not settings.verify,
    )
    return RequestClient(
        endpoint=settings.endpoint + "/",
        session_manager=sessions,
        timeout=(settings.connect_timeout_s, settings.read_timeout_s),
        token=settings.token,
        retry_config=RetryConfig(http_retry=http_retry, network_retry=network_retry),
    )


def _certificate(settings: OriginSettings) -> Any:
    return settings.client_cert[0] if len(settings.client_cert) == 1 else settings.client_cert or None


def translate(error: Exception, *, what: str, endpoint: str) -> OriginError:
    """Return our error for one of the SDK's, of requests' or of urllib3's; `what` was asked for."""
    for name, make in _TABLE:
        if any(name == base.__name__ for base in type(error).__mro__):
            return make(error, what, endpoint)
    return _other(error, what, endpoint)


def _said(error: Exception) -> str:
    """Return what the cluster said: the message in its JSON, or all of it if it is none."""
    text = str(getattr(error, "message", "")).strip()
    try:
        return str(msgspec.json.decode(text)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return text


def _bucket_missing(error: Exception, what: str, endpoint: str) -> OriginError:
    said = _said(error)
    return BucketNotFoundError(
        f"{what} does not exist on the cluster at {endpoint}; check name, provider and endpoint. "
        f"The cluster said: {said}",
        status=404,
        endpoint=endpoint,
    )


def _refused(error: Exception, what: str, endpoint: str) -> OriginError:
    status, said = getattr(error, "status_code", 0), _said(error)
    if status in (401, 403):
        return AuthenticationError(
            f"{endpoint} refused to list {what} (HTTP {status}); set AIS_AUTHN_TOKEN or Client(token=...) to a valid "
            f"token. The cluster said: {said}",
            status=status,
            endpoint=endpoint,
        )
    return OriginError(f"{endpoint} answered HTTP {status} for {what}: {said}", status=status, endpoint=endpoint)


def _timed_out(error: Exception, what: str, endpoint: str) -> OriginError:
    return OriginTimeoutError(f"{endpoint} did not answer in time for {what}: {error}", endpoint=endpoint)


def _broken(error: Exception, what: str, endpoint: str) -> OriginError:
    """Tell apart what requests calls a ConnectionError: no connection, and silence once there was one."""
    causes = [error, *error.args, *(getattr(cause, "reason", None) for cause in error.args)]
    silent = any(type(cause).__name__ == "ReadTimeoutError" for cause in causes)
    return (_timed_out if silent else _unreachable)(error, what, endpoint)


def _unreachable(error: Exception, what: str, endpoint: str) -> OriginError:
    advice = certificate_advice(str(error)) or "check that the cluster is up and that the endpoint is right"
    return UnreachableError(f"no connection to {endpoint} for {what}: {error}; {advice}", endpoint=endpoint)


def _other(error: Exception, what: str, endpoint: str) -> OriginError:
    advice = certificate_advice(str(error))
    text = f"{what} could not be read from {endpoint}: {type(error).__name__}: {error}{'; ' if advice else ''}{advice}"
    return OriginError(text, endpoint=endpoint)


# By name, most special first, so that the table needs no import of the SDK.
_TABLE: tuple[tuple[str, Callable[[Exception, str, str], OriginError]], ...] = (
    ("ErrBckNotFound", _bucket_missing),
    ("ErrRemoteBckNotFound", _bucket_missing),
    ("APIRequestError", _refused),
    ("Timeout", _timed_out),
    ("RetryError", _other),
    ("ConnectionError", _broken),
)
