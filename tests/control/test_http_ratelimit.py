from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from causeway.keys import new_key
from control.http.gate import remote_of
from control.http.ratelimit import Buckets, Limit
from control.rate_settings import ApplicationRate, FailureRate, RateSettings
from tests.control.service import running
from tests.control.test_http_edge import problem_of

TWO = Limit(rate=2, burst=3)


def test_a_burst_goes_through_and_then_the_rate() -> None:
    buckets = Buckets()
    assert [buckets.take("a", TWO, 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b", TWO, 0.0) == 0
    assert buckets.take("a", TWO, 0.25) == 0.25
    assert buckets.take("a", TWO, 0.5) == 0
    assert buckets.wait("a", TWO, 0.5) == 0.5
    assert [buckets.take("a", TWO, 100.0) for _ in range(4)] == [0, 0, 0, 0.5]


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 3), max_size=200),
)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    buckets, limit, now, taken = Buckets(), Limit(rate=rate, burst=burst), 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("a", limit, now)
        taken += wait == 0
        assert 0 <= wait <= 1 / rate + 1e-6
        assert taken <= burst + now * rate + 1e-6
    # Who waits as long as told is served.
    wait = buckets.take("a", limit, now)
    if wait:
        assert buckets.wait("a", limit, now + wait) < 1e-6


def test_the_table_is_bounded_and_the_quietest_leaves() -> None:
    buckets = Buckets(capacity=2)
    for name in ("a", "b", "a", "c"):
        buckets.take(name, Limit(rate=0.01, burst=1), 0.0)
    assert len(buckets) == 2
    assert buckets.wait("a", Limit(rate=0.01, burst=1), 0.0) > 0
    assert buckets.wait("b", Limit(rate=0.01, burst=1), 0.0) == 0


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3::4", 1), "2001:db8:1:2::/64"),
        (("testclient", 1), "testclient"),
        (None, "?"),
    ],
)
def test_an_ipv6_network_counts_as_one(client: tuple[str, int] | None, expected: str) -> None:
    assert remote_of(Request({"type": "http", "client": client, "headers": []})) == expected


async def test_a_key_that_is_used_too_often_has_to_wait(database_url: str) -> None:
    rate = RateSettings(application=ApplicationRate(rate=0.1, burst=2))
    async with running(database_url, background=False, rate=rate) as service:
        for _ in range(2):
            assert (await service.application.get("/v1/conferences")).status_code == 200
        answer = await service.application.get("/v1/conferences")
        assert problem_of(answer).type == "rate-limited"
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert service.keys["application"].rpartition("_")[2] not in answer.text
        assert (await service.operator.get("/v1/conferences")).status_code == 200


async def test_who_tries_keys_is_stopped_and_good_keys_go_on(database_url: str) -> None:
    rate = RateSettings(failures=FailureRate(rate=0.1, burst=3))
    async with running(database_url, background=False, rate=rate) as service:
        assert (await service.application.get("/v1/conferences")).status_code == 200
        for _ in range(3):
            headers = {"Authorization": f"Bearer {new_key('operator')}"}
            answer = await service.nobody.get("/v1/conferences", headers=headers)
            assert problem_of(answer).type == "unauthenticated"
        answer = await service.nobody.get("/v1/conferences")
        assert problem_of(answer).type == "rate-limited"
        assert int(answer.headers["retry-after"]) >= 1
        assert (await service.application.get("/v1/conferences")).status_code == 200
        forged = service.keys["application"][:-4] + "0000"
        answer = await service.nobody.get("/v1/conferences", headers={"Authorization": f"Bearer {forged}"})
        assert problem_of(answer).type == "rate-limited"
        assert (await service.nobody.get("/healthz")).status_code == 200
