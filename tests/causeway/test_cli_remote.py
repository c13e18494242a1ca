"""The commands of operators and applications against a real server on a real database."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from structlog.testing import capture_logs

from causeway.cli import run
from causeway.cli.tables import facts, table
from causeway.keys import parse_key
from control.http.server import address_of, bind, make_server
from control.settings import HttpSettings
from tests.control.service import Service, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CAUSEWAY_URL", "CAUSEWAY_KEY"):
        monkeypatch.delenv(name, raising=False)
    logging = structlog.get_config()
    yield
    structlog.configure(**logging)


class Terminal:
    """Runs commands as somebody at a terminal would, in a thread: each has an event loop of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], service: Service) -> None:
        self._capsys = capsys
        self.service = service

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = await asyncio.to_thread(run, list(arguments))
        out, err = self._capsys.readouterr()
        return code, out, err

    async def out(self, *arguments: str) -> str:
        code, out, err = await self.run(*arguments)
        assert code == 0, err
        return out

    async def read(self, *arguments: str) -> Any:
        return json.loads(await self.out(*arguments, "--json"))

    async def error(self, *arguments: str) -> str:
        code, out, err = await self.run(*arguments)
        assert code == 1, (code, out, err)
        assert err.startswith("causeway: ")
        assert err.count("\n") == 1, err
        return err


@asynccontextmanager
async def terminal(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    **control: Any,
) -> AsyncIterator[Terminal]:
    # The service logs to the standard output that is the command's here.
    with capture_logs():
        async with _serving(database_url, monkeypatch, **control) as service:
            yield Terminal(capsys, service)


@asynccontextmanager
async def _serving(
    database_url: str, monkeypatch: pytest.MonkeyPatch, **control: Any
) -> AsyncIterator[Service]:
    async with running(database_url, **control) as service:
        server = make_server(service.control.app, HttpSettings(), stop_timeout=1)
        with bind("127.0.0.1", 0) as listener:
            host, port = address_of(listener)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            monkeypatch.setenv("CAUSEWAY_URL", f"http://{host}:{port}")
            monkeypatch.setenv("CAUSEWAY_KEY", service.keys["operator"])
            try:
                await server.wait_started()
                yield service
            finally:
                server.should_exit = True
                await serving


async def test_keys_are_made_listed_and_revoked(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        out = await shell.out("key", "create", "application", "--name", "the shop", "--scope", "join")
        text = out.strip()
        key = parse_key(text)
        assert key is not None
        [listed] = [each for each in await shell.read("key", "list") if each["id"] == key.id]
        assert (listed["name"], listed["scopes"]) == ("the shop", ["join"])
        drawn = await shell.out("key", "list")
        assert "the shop" in drawn
        assert key.secret not in drawn
        file = tmp_path / "key"
        file.write_text(text + "\n", encoding="ascii")
        monkeypatch.delenv("CAUSEWAY_KEY")
        assert "403 forbidden" in await shell.error("key", "list", "--key-file", str(file))
        monkeypatch.setenv("CAUSEWAY_KEY", shell.service.keys["operator"])
        assert "is revoked" in await shell.out("key", "revoke", key.id)
        assert key.id not in await shell.out("key", "list")
        assert key.id in await shell.out("key", "list", "--revoked", "--kind", "application")
        assert "404 key-unknown" in await shell.error("key", "revoke", "0" * 12)


async def test_lists_are_paged_through(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        names = [f"c{n:03}" for n in range(103)]
        for name in names:
            await shell.service.create(name)
        listed = await shell.read("conference", "list")
        assert [each["id"] for each in listed] == names
        drawn = (await shell.out("conference", "list")).splitlines()
        assert len(drawn) == 104
        assert drawn[0].split()[0] == "conference"


async def test_a_conference_is_looked_after(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        terminal(database_url, monkeypatch, capsys) as shell,
        shell.service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        made = await shell.read("conference", "create", "standup", "--metadata", '{"team": "blue"}')
        assert (made["id"], made["metadata"], made["locked"]) == ("standup", {"team": "blue"}, False)
        assert "no decision" in await shell.out("conference", "explain", "standup")
        answer = await shell.service.join("standup", region="eu", user="ada\x1b[31m")
        assert answer.status_code == 200, answer.text
        shown = await shell.out("conference", "show", "standup")
        assert "eu-1" in shown
        explained = await shell.out("conference", "explain", "standup")
        assert "eu-1" in explained
        assert "\x1b" not in explained
        assert "ada" in explained
        [decision] = await shell.read("conference", "explain", "standup")
        assert decision["cluster"] == "eu-1"
        assert (await shell.read("conference", "lock", "standup"))["locked"] is True
        assert (await shell.service.join("standup", user="bob")).status_code == 409
        assert (await shell.read("conference", "unlock", "standup"))["locked"] is False
        await shell.out("conference", "delete", "standup")
        assert "404 conference-unknown" in await shell.error("conference", "show", "nope")


async def test_a_cluster_is_looked_after(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        terminal(database_url, monkeypatch, capsys) as shell,
        shell.service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        await shell.service.enrolment.put("/v1/clusters/eu-1/capacity/portal")
        assert "eu-1" in await shell.out("cluster", "list")
        assert await shell.read("cluster", "list", "--region", "us") == []
        shown = await shell.out("cluster", "show", "eu-1")
        assert "online" in shown
        assert "portal" in shown
        assert eu.stub.service_key not in shown
        drained = await shell.read("cluster", "drain", "eu-1", "--reason", "disk", "--within", "30")
        assert (drained["state"], drained["drain"]["reason"]) == ("draining", "disk")
        assert "disk" in await shell.out("cluster", "list")
        await shell.out("cluster", "undrain", "eu-1")
        assert (await shell.read("cluster", "show", "eu-1"))["drain"] is None
        assert (await shell.read("cluster", "block", "eu-1"))["block"] is not None
        await shell.out("cluster", "unblock", "eu-1")
        assert (await shell.read("cluster", "show", "eu-1"))["block"] is None
        assert "404 cluster-unknown" in await shell.error("cluster", "show", "us-1")


async def test_a_cluster_is_changed_and_the_log_says_by_whom(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        terminal(database_url, monkeypatch, capsys) as shell,
        shell.service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register(labels={"tier": "gold", "rack": "7"}, limits={"conferences": 5})
        where = ("--location", "50.1,8.7", "--cost", "2.5")
        assert "eu-1 is changed" in await shell.out("cluster", "set", "eu-1", "--participants", "9", *where)
        shown = await shell.read("cluster", "set", "eu-1", "--label", "tier=", "--label", "gpu=a=b")
        assert shown["labels"] == {"rack": "7", "gpu": "a=b"}
        assert (shown["limits"]["participants"], shown["limits"]["conferences"]) == (9, 5)
        assert (shown["location"], shown["cost"]) == ({"lat": 50.1, "lon": 8.7}, 2.5)
        shown = await shell.read("cluster", "set", "eu-1", "--conferences", "-1")
        assert shown["limits"] == {"participants": 9}
        entries = await shell.read("cluster", "log", "eu-1", "--last", "3")
        assert [each["action"] for each in entries] == ["changed"] * 3
        assert entries[0]["before"] == {"limit_conferences": 5}
        assert "gpu" in await shell.out("cluster", "log")
        for wrong, says in (
            ((), "name what is to be set"),
            (("--label", "tier"), "KEY=VALUE"),
            (("--location", "north"), "LAT,LON"),
            (("--location", "91,0"), "LAT,LON"),
            (("--participants", "-7"), "limits.participants"),
        ):
            code, out, err = await shell.run("cluster", "set", "eu-1", *wrong)
            assert (code, out, err.count("\n")) == (2, "", 1), err
            assert says in err
        assert "eu" in await shell.out("region", "list")


async def test_a_template_is_saved_shown_and_retired(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        toml, broken = tmp_path / "talk.toml", tmp_path / "broken.toml"
        toml.write_text("participant_limit = 20\nsfu_only = true\n", encoding="utf-8")
        broken.write_text("participants = 20\n", encoding="utf-8")
        assert "version 1" in await shell.out("template", "set", "talk", str(toml))
        tagged = await shell.read("template", "show", "talk")
        assert tagged["value"]["template"]["participant_limit"] == 20
        toml.write_text('{"participant_limit": 30}', encoding="utf-8")
        stale = await shell.error("template", "set", "talk", str(toml), "--if-match", '"x"')
        assert "412 precondition-failed" in stale
        await shell.out("template", "set", "talk", str(toml), "--if-match", tagged["tag"])
        assert "30" in await shell.out("template", "show", "talk")
        assert "talk" in await shell.out("template", "list")
        await shell.out("template", "delete", "talk")
        code, _, err = await shell.run("template", "set", "talk", str(broken))
        assert (code, "participants" in err) == (2, True)


async def test_signing_keys_are_rotated(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        before = await shell.read("key", "rotate-signing")
        after = await shell.read("key", "rotate-signing")
        assert {key["kid"] for key in after} != {key["kid"] for key in before}
        assert "active" in await shell.out("key", "rotate-signing")


async def test_a_key_is_made_without_control(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        monkeypatch.delenv("CAUSEWAY_KEY")
        monkeypatch.setenv("CAUSEWAY_DATABASE__URL", database_url)
        out = await shell.out("key", "create", "operator", "--name", "lost the other", "--local")
        monkeypatch.delenv("CAUSEWAY_DATABASE__URL")
        monkeypatch.setenv("CAUSEWAY_KEY", out.strip())
        [mine] = [each for each in await shell.read("key", "list") if each["name"] == "lost the other"]
        assert mine["created_by"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cluster", "list"), "no access key"),
        (("cluster", "list", "--key-file", "/nonexistent/key"), "/nonexistent/key"),
        (("key", "create", "operator", "--name", "x", "--state", "d"), "--local"),
        (("conference", "create", "c", "--metadata", "{"), "--metadata"),
        (("conference", "create", "a b"), "id"),
    ],
)
def test_wrong_calls_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_nobody_there_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_KEY", "cw_operator_1_hush")
    with bind("127.0.0.1", 0) as listener:
        port = address_of(listener)[1]
    assert run(["region", "list", "--url", f"http://127.0.0.1:{port}"]) == 1
    err = capsys.readouterr().err
    assert "cannot be reached" in err
    assert "hush" not in err
    assert err.count("\n") == 1


def test_what_is_drawn_is_harmless_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "values"), [("a\x1b[2J\n\u202e", ["x" * 300, True, None]), ("[bold]b[/]", {})])
    facts({"name": "\x07", "share": 0.25})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2J\\n\\u202e" in out
    assert "x" * 300 + ", yes, –" in out
    assert "[bold]b[/]" in out
    assert "\\x07" in out
