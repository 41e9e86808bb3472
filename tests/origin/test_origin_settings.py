"""What of the user's client survives, in this process and in others."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
from aistore.sdk import Client
from aistore.sdk.retry_config import RetryConfig
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rawserver import RawServer, Request, object_response, smap
from tenacity import (
    Retrying,
    stop_after_attempt,
    stop_after_delay,
    stop_any,
    stop_never,
    wait_chain,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)
from urllib3.util.retry import Retry

from aiscache.errors import ConfigError
from aiscache.keys import ObjectRef
from aiscache.origin import HeapSink, Origin, OriginSettings, RetryPolicy
from aiscache.origin.control import request_client
from aiscache.origin.policy import policy_of

_VARIABLES = [
    "AIS_AUTHN_TOKEN", "AIS_CLIENT_CA", "AIS_CRT", "AIS_CRT_KEY", "AIS_SKIP_VERIFY_CRT", "AIS_SKIP_VERIFY",
    "AIS_CONNECT_TIMEOUT", "AIS_READ_TIMEOUT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
]  # fmt: skip


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_sdks_defaults_are_ours() -> None:
    settings = OriginSettings.from_client(Client("http://localhost:8080"))
    assert settings == OriginSettings(endpoint="http://localhost:8080")
    assert settings.retry == RetryPolicy() == policy_of(*_parts(RetryConfig.default()))


def _parts(config: RetryConfig) -> tuple[Retry, Retrying]:
    return config.http_retry, config.network_retry


@pytest.mark.parametrize("endpoint", ["http://h:1", "http://h:1/", "https://h"])
def test_a_client_its_request_client_and_its_buckets_client_are_one(endpoint: str) -> None:
    client = Client(endpoint, token="s3cret", timeout=(1.5, 7))
    settings = OriginSettings.from_client(client)
    assert settings.endpoint == endpoint.rstrip("/")
    assert (settings.token, settings.connect_timeout_s, settings.read_timeout_s) == ("s3cret", 1.5, 7.0)
    bucket = client.bucket("b")
    for other in (bucket.client, bucket.objects(obj_names=["x"]).client):
        assert OriginSettings.from_client(other) == settings
        assert Origin.from_client(other) is Origin.from_client(client)


def test_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="str is not an aistore client"):
        OriginSettings.from_client("http://localhost")


def test_timeouts_that_are_off_still_end() -> None:
    settings = OriginSettings.from_client(Client("http://h", timeout=0))
    assert settings.connect_timeout_s == settings.read_timeout_s == 600
    settings = OriginSettings.from_client(Client("http://h", timeout=4))
    assert settings.connect_timeout_s == settings.read_timeout_s == 4


def test_tls_settings_come_from_arguments_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    of = OriginSettings.from_client
    with pytest.warns(UserWarning, match="insecure"):
        assert of(Client("https://h", skip_verify=True)).verify is False
    assert of(Client("https://h", ca_cert="/ca.pem")).ca == "/ca.pem"
    assert of(Client("https://h", client_cert="/both.pem")).client_cert == ("/both.pem",)
    assert of(Client("https://h", client_cert=("/c", "/k"))).client_cert == ("/c", "/k")
    monkeypatch.setenv("AIS_CLIENT_CA", "/env.pem")
    monkeypatch.setenv("AIS_CRT", "/c")
    monkeypatch.setenv("AIS_CRT_KEY", "/k")
    monkeypatch.setenv("AIS_AUTHN_TOKEN", "t")
    monkeypatch.setenv("AIS_READ_TIMEOUT", "9")
    settings = of(Client("https://h"))
    assert (settings.ca, settings.client_cert, settings.token) == ("/env.pem", ("/c", "/k"), "t")
    assert settings.read_timeout_s == 9
    monkeypatch.setenv("AIS_SKIP_VERIFY_CRT", "true")
    with pytest.warns(UserWarning, match="insecure"):
        assert of(Client("https://h")).verify is False


def test_the_token_shows_nowhere_but_crosses() -> None:
    settings = OriginSettings(endpoint="http://h", token="s3cret")
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(Origin.of(settings))
    assert pickle.loads(pickle.dumps(settings)).token == "s3cret"


@pytest.mark.parametrize(
    ("stop", "attempts"),
    [
        (stop_after_attempt(4), 4),
        (stop_never, 30),
        (stop_after_delay(10), 30),
        (stop_any(stop_after_attempt(9), stop_after_attempt(3)), 3),
        (stop_after_attempt(5) & stop_after_attempt(2), 5),
    ],
)
def test_stops(stop: object, attempts: int) -> None:
    assert policy_of(None, Retrying(stop=stop)).network_attempts == attempts


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (wait_fixed(2), ((2, 2), (2, 2), (2, 2))),
        (wait_none(), ((0, 0), (0, 0), (0, 0))),
        (wait_random(1, 3), ((1, 3), (1, 3), (1, 3))),
        (wait_exponential(multiplier=2, max=5), ((2, 2), (4, 4), (5, 5))),
        (wait_random_exponential(multiplier=1, max=3), ((0, 1), (0, 2), (0, 3))),
        (wait_incrementing(start=1, increment=2), ((1, 1), (3, 3), (5, 5))),
        (wait_fixed(1) + wait_random(0, 2), ((1, 3), (1, 3), (1, 3))),
        (wait_chain(wait_fixed(1), wait_fixed(7)), ((1, 1), (7, 7), (7, 7))),
    ],
)
def test_waits(wait: object, expected: tuple[tuple[float, float], ...]) -> None:
    policy = policy_of(None, Retrying(stop=stop_after_attempt(4), wait=wait))
    assert policy.network_waits_s == expected


@hypothesis_settings(deadline=None)
@given(attempt=st.integers(1, 9), low=st.floats(0, 5), high=st.floats(5, 50), factor=st.floats(0.1, 5))
def test_tenacitys_own_waits_lie_within_ours(attempt: int, low: float, high: float, factor: float) -> None:
    from tenacity import RetryCallState

    for wait in (wait_random_exponential(factor, high, min=low), wait_exponential(factor, high, min=low)):
        retrying = Retrying(wait=wait, stop=stop_after_attempt(10))
        state = RetryCallState(retrying, None, (), {})
        state.attempt_number = attempt
        least, most = policy_of(None, retrying).network_waits_s[attempt - 1]
        assert least - 1e-9 <= wait(state) <= most + 1e-9


def test_a_wait_of_the_users_own_becomes_the_default() -> None:
    policy = policy_of(None, Retrying(stop=stop_after_attempt(3), wait=lambda state: 1.0))
    assert (policy.network_attempts, policy.network_waits_s) == (3, RetryPolicy().network_waits_s)


def test_a_custom_policy_survives_where_the_sdk_drops_it() -> None:
    config = RetryConfig(
        http_retry=Retry(total=2, backoff_factor=0.5, status_forcelist=[418], respect_retry_after_header=False),
        network_retry=Retrying(stop=stop_after_attempt(2), wait=wait_fixed(0.25)),
    )
    client = Client("http://h:1", retry_config=config)
    settings = pickle.loads(pickle.dumps(OriginSettings.from_client(client)))
    expected = RetryPolicy(
        statuses=(418,), status_retries=2, backoff_s=0.5, respect_retry_after=False,
        network_attempts=2, network_waits_s=((0.25, 0.25),),
    )  # fmt: skip
    assert settings.retry == expected
    # And the SDK's client that is made of it says the same again.
    assert OriginSettings.from_client(request_client(settings)).retry.statuses == (418,)
    assert request_client(settings)._retry_manager.retry_config.network_retry.stop.max_attempt_number == 2


def test_delays() -> None:
    policy = RetryPolicy()
    assert [policy.status_delay_s(n) for n in range(1, 7)] == [3, 6, 12, 24, 48, None]
    assert policy.status_delay_s(1, retry_after_s=7) == 7
    assert RetryPolicy(respect_retry_after=False).status_delay_s(1, retry_after_s=7) == 3
    assert policy.network_delay_s(1) == 1
    assert policy.network_delay_s(7) is None
    assert policy.budget_s(23) == pytest.approx(1 + 2 + 4 + 8 + 16 + 30 + 93 + 12 * 23)


def test_an_origin_pickles_small_and_is_shared(origin_at: Callable[..., Origin]) -> None:
    origin = Origin.from_client(Client("http://localhost:1", token="t" * 200))
    data = pickle.dumps(origin)
    assert len(data) < 2000
    assert pickle.loads(data) is pickle.loads(data) is origin


def test_an_origin_is_found_by_its_cluster() -> None:
    def answer(request: Request) -> bytes:
        return smap(server.url, uuid="ThisOne") if "what=smap" in request.path else object_response(b"x")

    with RawServer(answer) as server:
        origin = Origin.of(OriginSettings(endpoint=server.url))
        assert Origin.for_cluster("ThisOne") is None
        assert origin.uuid == "ThisOne"
        assert Origin.for_cluster("ThisOne") is origin
        assert Origin.for_cluster("another") is None
        ref = ObjectRef(cluster="ThisOne", provider="ais", bucket="b", name="x")
        for _ in range(2):  # close() frees, and does not end
            assert bytes(origin.fetch_one(ref, HeapSink()).result()) == b"x"
            origin.close()
        assert sum("smap" in request.path for request in server.requests) == 1
