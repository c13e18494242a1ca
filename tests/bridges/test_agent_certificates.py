"""A bridge process's certificates, and its trust in those of others, from start to end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bridges.agent import serve, with_environment
from bridges.control.settings import ControlSettings
from bridges.quic import Certificate, CertificateSettings, QuicSettings, dial, listen
from bridges.quic import certificates as certificates_module
from bridges.settings import BridgeSettings
from causeway.errors import ConfigError
from tests.bridges import frozen_channel as frozen
from tests.bridges.control_stub import KEY, ControlStub
from tests.bridges.event_side import Probe
from tests.bridges.node_stub import SECRET, NodeStub
from tests.bridges.test_quic_certificates import pem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bridges.quic import Connection

WAIT = 20.0


@asynccontextmanager
async def process(node: NodeStub, control: ControlStub, quic: QuicSettings) -> AsyncIterator[None]:
    """Run a bridge process that is an agent of control."""
    settings = BridgeSettings(
        cluster="west",
        node_url=node.url,
        node_secret=SECRET,
        quic=quic,
        control=ControlSettings(url=control.url, key=KEY, region="eu", retry_base=0.01),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop=stop))
    try:
        await control.said_hello()
        yield
    finally:
        stop.set()
        await running


def fingerprints(registration: dict[str, Any]) -> dict[str, str]:
    return {kind: address["fingerprint"] for kind, address in registration["addresses"].items()}


async def test_a_new_certificate_is_shown_registered_and_told_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "bridge.pem"
    old, new = Certificate.self_signed("old"), Certificate.self_signed("new")
    file.write_bytes(pem_of(old))
    quic = QuicSettings(certificate=CertificateSettings(file=str(file), check_interval=0.02))
    async with NodeStub() as node, ControlStub().up() as control, process(node, control, quic):
        assert fingerprints(control.registrations[0]) == dict.fromkeys(("event", "media"), old.fingerprint)
        file.write_bytes(pem_of(new))
        await control.until(
            lambda: set(fingerprints(control.registrations[-1]).values()) == {new.fingerprint}
        )
        assert len({registration["instance"] for registration in control.registrations}) == 1
        for purpose in ("eventbridge", "mediabridge"):
            info = await node.call(await node.joined(purpose), "getInfo")
            assert info["fingerprint"] == new.fingerprint
            connection = await dial(info["ip"], info["port"], fingerprint=new.fingerprint, settings=quic)
            connection.close()
            await connection.wait_closed()


async def test_self_signed_certificates_are_renewed_while_the_process_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renewal = certificates_module.renewal_of
    due: set[str] = set()
    monkeypatch.setattr(
        certificates_module,
        "renewal_of",
        lambda one: one.certificate.not_valid_before_utc if one.fingerprint in due else renewal(one),
    )
    monkeypatch.setattr(certificates_module, "_LONGEST_SLEEP", 0.02)
    async with NodeStub() as node, ControlStub().up() as control, process(node, control, QuicSettings()):
        before = fingerprints(control.registrations[0])
        due.add(before["media"])
        await control.until(lambda: len(control.registrations) == 2)
        after = fingerprints(control.registrations[1])
        assert after["event"] == before["event"]
        assert after["media"] != before["media"]


@asynccontextmanager
async def owt_bridge() -> AsyncIterator[tuple[int, str, asyncio.Queue[Probe]]]:
    """Listen as an OWT bridge, of which only the address is known; yields port, fingerprint, who dialled."""
    certificate = Certificate.self_signed("owt")
    dialled: asyncio.Queue[Probe] = asyncio.Queue()

    def accept(_: Connection) -> Probe:
        dialled.put_nowait(probe := Probe())
        return probe

    settings = QuicSettings(alpn=("h3",))
    listener = await listen("127.0.0.1", 0, certificate=certificate, on_connection=accept, settings=settings)
    try:
        yield listener.port, certificate.fingerprint, dialled
    finally:
        listener.close()


def desired(port: int) -> frozen.Desired:
    where = frozen.Address(host="127.0.0.1", port=port, fingerprint=None)
    link = frozen.DesiredLink(peer="owt-1", role="dial", attempt=1, token="t", event=where)
    assignment = frozen.Assignment(conference="room-1", kinds=["event", "media"], links=[link])
    return frozen.Desired(version=1, conferences=[assignment])


@pytest.mark.parametrize("how", ["unpinned", "listed"])
async def test_an_agent_dials_an_owt_bridge_without_a_fingerprint_if_the_operator_says_so(how: str) -> None:
    async with NodeStub() as node, ControlStub().up() as control, owt_bridge() as (port, known, dialled):
        node.room("room-1")
        quic = {
            "unpinned": QuicSettings(insecure_unpinned=True),
            "listed": QuicSettings(trusted_fingerprints=(known,)),
        }[how]
        async with process(node, control, quic):
            await control.say(desired(port))
            async with asyncio.timeout(WAIT):
                probe = await dialled.get()
            await probe.until(lambda p: b'"ready"' in p.data.get(0, b""))


async def test_without_the_operators_word_it_refuses() -> None:
    async with NodeStub() as node, ControlStub().up() as control, owt_bridge() as (port, _, dialled):
        node.room("room-1")
        async with process(node, control, QuicSettings()):
            await control.say(desired(port))
            await control.until(lambda: control.of(frozen.Refuse))
            assert "fingerprint" in control.of(frozen.Refuse)[0].problems[0].reason
        assert dialled.empty()


async def test_a_certificate_that_is_not_listed_is_not_taken() -> None:
    async with NodeStub() as node, ControlStub().up() as control, owt_bridge() as (port, _, dialled):
        node.room("room-1")
        async with process(node, control, QuicSettings(trusted_fingerprints=("0" * 64,))):
            await control.say(desired(port))
            await control.until(lambda: any(report.links for report in control.of(frozen.Report)))
            (link,) = next(report.links for report in control.of(frozen.Report) if report.links)
            assert link.state == "down"
            assert "another certificate" in link.error
        assert dialled.empty()


def test_owts_variable_is_added_to_what_is_set() -> None:
    one, two = "AB:" * 31 + "CD", "0" * 64
    settings = BridgeSettings(quic=QuicSettings(trusted_fingerprints=(two,)))
    quic = with_environment(settings, {"QUIC_SERVER_FINGERPRINTS": one}).quic
    assert quic.trusted_fingerprints == (two, one)
    assert quic.takes_unnamed
    assert with_environment(settings, {}) == settings
    with pytest.raises(ConfigError, match="QUIC_SERVER_FINGERPRINTS"):
        with_environment(settings, {"QUIC_SERVER_FINGERPRINTS": "12"})


async def test_a_certificate_that_cannot_be_read_stops_the_start() -> None:
    async with NodeStub() as node:
        quic = QuicSettings(certificate=CertificateSettings(file="/nowhere.pfx", password="s3cr3t"))
        settings = BridgeSettings(cluster="west", node_url=node.url, node_secret=SECRET, quic=quic)
        with pytest.raises(ConfigError, match=r"nowhere\.pfx") as caught:
            await serve(settings, stop=asyncio.Event())
        assert "s3cr3t" not in str(caught.value)
