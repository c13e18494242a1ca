"""The bridge process: composition, settings, orderly stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from typing import Any

import msgspec
import pytest

from bridges.agent import check, serve
from bridges.control.settings import ControlSettings
from bridges.settings import BridgeSettings, Settings
from causeway import cli
from causeway import settings as loader
from causeway.errors import ConfigError, UnavailableError
from tests.bridges.control_stub import KEY, ControlStub
from tests.bridges.node_stub import SECRET, NodeStub

WAIT = 20.0


def settings_for(node: NodeStub, **changes: Any) -> BridgeSettings:
    base = BridgeSettings(cluster="west", node_url=node.url, node_secret=SECRET)
    return msgspec.structs.replace(base, **changes)


async def test_both_bridges_join_and_answer_until_stopped() -> None:
    async with NodeStub() as node:
        stop = asyncio.Event()
        running = asyncio.create_task(serve(settings_for(node), stop=stop))
        infos = {}
        for purpose in ("eventbridge", "mediabridge"):
            worker = await node.joined(purpose)
            infos[purpose] = await node.call(worker, "getInfo")
            assert infos[purpose]["id"] == worker
            assert infos[purpose]["port"] == next(j for j in node.joins if j[1] == worker)[2]["port"]
        assert infos["eventbridge"]["port"] != infos["mediabridge"]["port"]
        assert infos["eventbridge"]["fingerprint"] != infos["mediabridge"]["fingerprint"]
        began = time.monotonic()
        stop.set()
        await running
        assert time.monotonic() - began < 3
        await node.until(lambda: not node.workers)


async def test_one_kind_alone() -> None:
    async with NodeStub() as node:
        stop = asyncio.Event()
        running = asyncio.create_task(serve(settings_for(node, kinds=("event",)), stop=stop))
        await node.joined("eventbridge")
        assert not any(join[0] == "mediabridge" for join in node.joins)
        stop.set()
        await running


async def test_taken_port_is_one_clear_error_and_nothing_keeps_running() -> None:
    async with NodeStub() as node:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            settings = settings_for(node, media_port=taken.getsockname()[1])
            with pytest.raises(UnavailableError, match="cannot listen"):
                await serve(settings, stop=asyncio.Event())
        await node.until(lambda: not node.workers)


async def test_cancelled_from_outside() -> None:
    async with NodeStub() as node:
        running = asyncio.create_task(serve(settings_for(node), stop=asyncio.Event()))
        await node.joined("mediabridge")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await node.until(lambda: not node.workers)


@pytest.mark.parametrize("missing", ["cluster", "node_url", "node_secret"])
def test_missing_setting_is_named(missing: str) -> None:
    complete = BridgeSettings(cluster="west", node_url="ws://127.0.0.1:1", node_secret="s")
    check(complete)
    with pytest.raises(ConfigError, match=missing.upper()):
        check(msgspec.structs.replace(complete, **{missing: ""}))


@pytest.mark.parametrize("missing", ["key", "region"])
def test_missing_setting_of_an_agent_is_named(missing: str) -> None:
    control = ControlSettings(url="http://127.0.0.1:1", key="k", region="eu")
    complete = BridgeSettings(cluster="west", node_url="ws://127.0.0.1:1", node_secret="s", control=control)
    check(complete)
    with pytest.raises(ConfigError, match=f"BRIDGE__CONTROL__{missing.upper()}"):
        check(msgspec.structs.replace(complete, control=msgspec.structs.replace(control, **{missing: ""})))


async def test_told_of_control_the_process_is_an_agent() -> None:
    async with NodeStub() as node, ControlStub().up() as control:
        stop = asyncio.Event()
        told = ControlSettings(url=control.url, key=KEY, region="eu")
        settings = settings_for(node, control=told, kinds=("event",), cluster="west~1")
        running = asyncio.create_task(serve(settings, stop=stop))
        await control.said_hello()
        info = await node.call(await node.joined("eventbridge"), "getInfo")
        (registration,) = control.registrations
        assert registration["cluster"] == "west~1"
        assert registration["kinds"] == ["event"]
        assert registration["addresses"] == {
            "event": {"host": "127.0.0.1", "port": info["port"], "fingerprint": info["fingerprint"]}
        }
        stop.set()
        await running
        assert control.taken_back == ["4"]


def test_secret_does_not_show() -> None:
    settings = BridgeSettings(
        cluster="west",
        node_url="ws://127.0.0.1:1",
        node_secret="hush-hush",
        control=ControlSettings(url="http://127.0.0.1:1", key="hush-hush"),
    )
    assert "hush-hush" not in repr(settings.control)
    assert "hush-hush" not in repr(settings)
    assert "hush-hush" not in repr(Settings(bridge=settings))


def test_settings_from_the_environment() -> None:
    settings = loader.load(
        Settings,
        file=None,
        environment={
            "CAUSEWAY_BRIDGE__CLUSTER": "west",
            "CAUSEWAY_BRIDGE__QUIC__IDLE_TIMEOUT": "5",
            "CAUSEWAY_BRIDGE__EVENT_PORT": "7000",
        },
    )
    assert settings.bridge.cluster == "west"
    assert settings.bridge.quic.idle_timeout == 5.0
    assert settings.bridge.event_port == 7000


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["bridge", "--kinds", "event,sound"], "sound"),
        (["bridge", "--event-port", "70000"], "70000"),
        (["bridge"], "bridge.cluster"),
        (["bridge", "--cluster", "west", "--node-url", "http://x"], "node_secret"),
    ],
)
def test_wrong_call_is_one_line_and_exit_code_two(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1


async def test_url_that_is_none_is_a_setting_error() -> None:
    settings = BridgeSettings(cluster="west", node_url="http://127.0.0.1:1", node_secret="s")
    with pytest.raises(ConfigError, match="ws://"):
        await serve(settings, stop=asyncio.Event())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_process_stops_in_order_on_a_signal(number: signal.Signals) -> None:
    async with NodeStub() as node:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "causeway", "bridge"),
            *("--cluster", "west"),
            *("--node-url", node.url),
            *("--kinds", "event,media"),
            env={**os.environ, "CAUSEWAY_BRIDGE__NODE_SECRET": SECRET},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(WAIT):
                await node.joined("eventbridge")
                await node.joined("mediabridge")
                began = time.monotonic()
                process.send_signal(number)
                _, errors = await process.communicate()
            assert process.returncode == 0
            assert time.monotonic() - began < 3
            assert b"Traceback" not in errors
            assert SECRET.encode() not in errors
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
