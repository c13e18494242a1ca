"""Signatures, the guard and what becomes of messages: pure."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.api import WebhookEvent
from causeway.api.events import EVENT_KINDS
from causeway.errors import ConfigError
from control.delivery import attempts, guard, signing
from control.delivery.attempts import (
    CIRCUIT,
    MESSAGE,
    Attempt,
    Endpoint,
    circuit_of,
    judge,
    outcome_of,
)
from control.delivery.guard import AddressRefusedError, Guard
from control.delivery.signing import headers, new_secret, secret_bytes, verify
from control.webhook_settings import WebhookSettings

if TYPE_CHECKING:
    from control.delivery.attempts import Verdict

NOW: Final = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SETTINGS: Final = WebhookSettings()


def test_they_are_pure() -> None:
    for module in (signing, guard, attempts):
        assert module.__file__ is not None
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert not re.search(
            r"^(import|from) (asyncio|socket|aiohttp|sqlalchemy|time)\b", source, re.MULTILINE
        )


def test_webhooks_can_ask_for_every_kind_of_event() -> None:
    kinds = {*EVENT_KINDS, *(f"{kind.partition('.')[0]}.*" for kind in EVENT_KINDS)}
    assert set(get_args(WebhookEvent)) == kinds


# --- signatures -------------------------------------------------------------------------------


def test_a_signature_is_the_one_of_the_specification() -> None:
    """The example that the Standard Webhooks libraries test themselves with."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    signed = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", body, timestamp=1614265330, valid=[secret])
    assert signed == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify(signed, body, secret, now=1614265330, tolerance=300)


def test_secrets_are_drawn_and_read() -> None:
    assert len(secret_bytes(new_secret())) == 32
    assert new_secret() != new_secret()
    short, long = (base64.b64encode(bytes(n)).decode() for n in (23, 65))
    for text in (
        "",
        "whsec_",
        "whsec_%%%",
        f"whsec_{short}",
        f"whsec_{long}",
        base64.b64encode(bytes(32)).decode(),
    ):
        with pytest.raises(ValueError, match="a secret is whsec_"):
            secret_bytes(text)


@given(body=st.binary(max_size=200), flip=st.integers(0, 10_000), stamp=st.integers(0, 2**33))
def test_what_was_changed_is_not_genuine(*, body: bytes, flip: int, stamp: int) -> None:
    old, new, other = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2, 3))
    signed = headers("msg_1", body, timestamp=stamp, valid=[new, old])
    assert all(verify(signed, body, each, now=stamp, tolerance=0) for each in (old, new))
    assert not verify(signed, body, other, now=stamp, tolerance=0)
    changed = bytearray(body or b"x")
    changed[flip % len(changed)] ^= 1 + flip % 255
    if bytes(changed) != body:
        assert not verify(signed, bytes(changed), new, now=stamp, tolerance=0)
    assert not verify(signed | {"webhook-id": "msg_2"}, body, new, now=stamp, tolerance=0)
    assert not verify(signed, body, new, now=stamp + 301, tolerance=300)


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text(max_size=40)
    )
)
def test_headers_of_others_are_refused_not_stumbled_over(received: dict[str, str]) -> None:
    assert not verify(received, b"{}", new_secret(), now=0, tolerance=1e12)


# --- where messages may go --------------------------------------------------------------------

PUBLIC = ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
PRIVATE = (
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::808:808",
    "localhost",
    "",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    Guard().check(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_all_others_are_refused(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        Guard().check(address)


def test_networks_can_be_allowed() -> None:
    local = Guard.of(["10.0.0.0/8", "fd00::/8"], http=False)
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "8.8.8.8"):
        local.check(address)
    for address in ("192.168.0.1", "::ffff:192.168.0.1", "fc00::1", "127.0.0.1"):
        with pytest.raises(AddressRefusedError, match="allow_networks"):
            local.check(address)
    for wrong in ("10.0.0.1/8", "home", "10.0.0.0/33"):
        with pytest.raises(ConfigError, match=r"control\.webhooks\.allow_networks"):
            Guard.of([wrong], http=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/a?b=c",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    Guard().check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "example.com",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com/#x",
        "https://example.com:99999/",
        "https://[::1",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[fe80::1%25eth0]/",
        "https://169.254.169.254/latest/meta-data",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each with its own sentence
        Guard().check_url(url)


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            Guard(http=True).check_url(url)
        except ValueError:
            continue


# --- what becomes of messages -----------------------------------------------------------------

OK, BAD = Attempt(status=200), Attempt(status=500, error="the receiver answered 500")


def highest(_low: float, high: float) -> float:
    return high


def after(
    attempt: Attempt,
    endpoint: Endpoint = Endpoint(),  # noqa: B008 - frozen
    *,
    tries: int = 0,
    age: float = 0.0,
    settings: WebhookSettings = SETTINGS,
) -> Verdict:
    return judge(
        attempt,
        endpoint=endpoint,
        tries=tries,
        queued_at=NOW - timedelta(seconds=age),
        now=NOW,
        settings=settings,
        uniform=highest,
    )


def test_what_answers_mean() -> None:
    meaning = {
        status: outcome_of(Attempt(status=status))
        for status in (None, 200, 204, 299, 301, 400, 410, 429, 503)
    }
    assert [status for status, means in meaning.items() if means == "taken"] == [200, 204, 299]
    assert [status for status, means in meaning.items() if means == "gone"] == [410]


def test_every_state_has_its_transitions() -> None:
    assert {state for state, _ in MESSAGE} == set(MESSAGE.values())
    assert {state for state, _ in CIRCUIT} == set(CIRCUIT.values())
    assert {event for state, event in CIRCUIT if state == "half-open"} == {"success", "failure", "last straw"}


def test_delays_grow_to_their_cap_and_go_on_for_days() -> None:
    delays = []
    for tries in range(12):
        due = after(BAD, tries=tries, settings=WebhookSettings(failures_to_pause=1000)).due_at
        assert due is not None
        delays.append((due - NOW).total_seconds())
    assert delays[:4] == [5.0, 20.0, 80.0, 320.0]
    assert delays[-1] == SETTINGS.retry_cap
    assert sum(delays) > 86_400
    assert after(BAD, tries=10**9).due_at is not None  # no overflow


def test_a_message_that_is_too_old_is_given_up() -> None:
    old = after(BAD, age=SETTINGS.give_up)
    assert (old.message, old.due_at) == ("dead", None)
    assert after(OK, age=10 * SETTINGS.give_up).message == "delivered"
    # Who wants no more says nothing of this message: it waits for being enabled.
    gone = after(Attempt(status=410), age=SETTINGS.give_up)
    assert (gone.message, gone.disable) == ("pending", "gone")


def test_the_circuit_opens_is_tried_and_closes() -> None:
    endpoint = Endpoint()
    for failures in range(1, SETTINGS.failures_to_pause):
        endpoint = after(BAD, endpoint).endpoint
        assert (endpoint.failures, circuit_of(endpoint, NOW)) == (failures, "closed")
    endpoint = after(BAD, endpoint).endpoint
    assert circuit_of(endpoint, NOW) == "open"
    assert endpoint.paused_until == NOW + timedelta(seconds=SETTINGS.pause_base)
    assert endpoint.failing_since == NOW
    # One that began before the pause changes nothing.
    assert after(BAD, endpoint).endpoint == endpoint
    rested = replace(endpoint, paused_until=NOW)
    assert circuit_of(rested, NOW) == "half-open"
    again = after(BAD, rested).endpoint
    assert again.paused_until == NOW + timedelta(seconds=2 * SETTINGS.pause_base)
    for each in (rested, endpoint):
        good = after(OK, each)
        assert (good.endpoint, good.recovered) == (Endpoint(), True)
    assert not after(OK).recovered


def test_a_receiver_may_ask_to_be_left_alone() -> None:
    busy = Attempt(status=429, error="the receiver answered 429", retry_after=100.0)
    assert after(busy).due_at == NOW + timedelta(seconds=100)
    last = Endpoint(failures=SETTINGS.failures_to_pause - 1, failing_since=NOW)
    assert after(busy, last).endpoint.paused_until == NOW + timedelta(seconds=100)
    # But not for ever.
    for_ever = replace(busy, retry_after=1e9)
    assert after(for_ever).due_at == NOW + timedelta(seconds=SETTINGS.retry_cap)
    assert after(for_ever, last).endpoint.paused_until == NOW + timedelta(seconds=SETTINGS.pause_cap)


def test_nothing_but_failures_for_days_disables() -> None:
    long = timedelta(seconds=SETTINGS.disable_after)
    failing = Endpoint(failures=100, failing_since=NOW - long, paused_until=NOW)
    assert after(BAD, failing).disable == "failing"
    assert after(BAD, failing, age=SETTINGS.give_up).disable == "failing"
    assert after(BAD, replace(failing, failing_since=NOW - long + timedelta(seconds=1))).disable is None


@given(
    status=st.none() | st.integers(100, 599),
    failures=st.integers(0, 10**6),
    paused=st.none() | st.floats(-1e5, 1e5),
    tries=st.integers(0, 10**6),
    age=st.floats(0, 1e7),
    retry_after=st.none() | st.floats(0, 1e12),
)
def test_a_verdict_never_contradicts_itself(
    *,
    status: int | None,
    failures: int,
    paused: float | None,
    tries: int,
    age: float,
    retry_after: float | None,
) -> None:
    endpoint = Endpoint(
        failures=failures,
        failing_since=NOW if failures else None,
        paused_until=None if paused is None else NOW + timedelta(seconds=paused),
    )
    verdict = after(Attempt(status=status, retry_after=retry_after), endpoint, tries=tries, age=age)
    assert (verdict.due_at is None) == (verdict.message != "pending")
    if verdict.due_at is not None:
        assert NOW < verdict.due_at <= NOW + timedelta(seconds=SETTINGS.retry_cap)
    if verdict.message == "delivered":
        assert verdict.endpoint == Endpoint()
        assert verdict.disable is None
    else:
        assert verdict.endpoint.failures >= endpoint.failures
        assert not verdict.recovered
