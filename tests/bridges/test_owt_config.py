"""OWT's agent.toml as a source of settings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog.testing
from click.testing import CliRunner
from msgspec import structs

from bridges import owt_config
from bridges.agent import check, serve
from bridges.node.amqp.settings import AmqpSettings
from bridges.owt_config import with_owt_config
from bridges.quic import CertificateSettings
from bridges.settings import BridgeSettings
from causeway.cli import main
from causeway.cli.bridge import command
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FULL = """
[agent]
maxProcesses = 1
prerunProcesses = 1
[cluster]
name = "our-cluster"
join_retry = 60
report_load_interval = 2500
max_load = 0.7
network_max_scale = 1000
[capacity]
isps = ["one"]
regions = ["eu", "af"]
[rabbit]
host = "rabbit.example"
port = 5673
[internal]
ip_address = "10.0.0.7"
maxport = 30200
minport = 30100
[bridge]
keystorePath = "./cert/certificate.pfx"
ip_address = "198.51.100.7"
hostname = ""
port = 7701
"""


def read(
    tmp_path: Path, text: str, *, environ: dict[str, str] | None = None, **changes: Any
) -> BridgeSettings:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    base = structs.replace(BridgeSettings(kinds=("event",)), **changes)
    return with_owt_config(base, file, environ=environ or {}, address_of=lambda name: f"<{name}>")


def test_every_key_has_its_place(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    assert settings.node_carrier == "amqp"
    assert (settings.host, settings.public_host) == ("0.0.0.0", "198.51.100.7")
    assert (settings.event_port, settings.media_port) == (7701, 0)
    amqp = settings.amqp
    assert (amqp.url, amqp.manager) == ("amqp://rabbit.example:5673", "our-cluster")
    assert (amqp.max_load, amqp.report_load_interval) == (0.7, 2.5)
    assert (amqp.isps, amqp.regions) == (("one",), ("eu", "af"))
    media = settings.media
    assert (media.internal_host, media.internal_min_port, media.internal_max_port) == (
        "10.0.0.7",
        30100,
        30200,
    )
    check(settings)


def test_an_empty_file_means_owts_defaults(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert (settings.event_port, settings.amqp.url) == (7700, "amqp://localhost:5672")
    assert (settings.public_host, settings.media.internal_host) == ("<>", "<>")
    assert settings.amqp.manager == "owt-cluster"
    assert read(tmp_path, "", kinds=("media",)).media_port == 0
    assert read(tmp_path, "[bridge]\nport = 0").event_port == 0


def test_names_interfaces_and_variables(tmp_path: Path) -> None:
    text = '[bridge]\nip_address = "$IP"\nhostname = "$NAME"\n[internal]\nnetwork_interface = "eth1"'
    settings = read(tmp_path, text, environ={"IP": "192.0.2.1", "NAME": "bridge.example"})
    assert (settings.public_host, settings.media.internal_host) == ("bridge.example", "<eth1>")
    assert read(tmp_path, '[bridge]\nnetworkInterface = "eth0"').public_host == "<eth0>"
    with pytest.raises(ConfigError, match="the environment has no NAME"):
        read(tmp_path, text)


def test_what_is_set_otherwise_goes_before(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        FULL,
        event_port=9000,
        host="127.0.0.2",
        amqp=structs.replace(BridgeSettings().amqp, url="amqps://other:5671/x", password="pw"),
    )
    assert (settings.event_port, settings.host) == (9000, "127.0.0.2")
    assert (settings.amqp.url, settings.amqp.password) == ("amqps://other:5671/x", "pw")
    assert settings.amqp.manager == "our-cluster"


def test_what_owts_amqp_library_takes_is_taken(tmp_path: Path) -> None:
    where = '[rabbit]\nhost = "::1"\nprotocol = "amqps"\nport = 5671\nvhost = "a/b"\n'
    amqp = read(tmp_path, where + 'username = "u"\npassword = "p@"').amqp
    assert amqp.url == "amqps://[::1]:5671/a%2Fb"
    assert (amqp.username, amqp.password) == ("u", "p@")


def test_unknown_keys_cost_a_line_each(tmp_path: Path) -> None:
    text = '[bridge]\nport = 1\ncolour = "red"\n[rabbit]\nfrom = 3\n[strange]\nx = 1\n'
    with structlog.testing.capture_logs() as logs:
        assert read(tmp_path, text).event_port == 1
    assert [entry["key"] for entry in logs if entry["event"] == "owt_config.unknown_key"] == [
        "bridge.colour",
        "rabbit.from",
        "strange",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bridge]\nport = 'x'", r"\$\.bridge\.port"),
        ("[bridge]\nport = 65536", r"\$\.bridge\.port"),
        ("[rabbit]\npassword = 77", r"\$\.rabbit\.password"),
        ("[cluster]\nreport_load_interval = 0", "report_load_interval"),
        ("bridge = 3", r"\$\.bridge"),
        ("[bridge", "not TOML"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        read(tmp_path, text)
    assert "77" not in str(raised.value)


def test_a_missing_file_and_two_bridges(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        with_owt_config(BridgeSettings(kinds=("event",)), tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigError, match="--kinds event or --kinds media"):
        read(tmp_path, FULL, kinds=("event", "media"))


def test_the_keystore_is_used_where_its_password_is_known(tmp_path: Path) -> None:
    (tmp_path / "cert").mkdir()
    keystore = tmp_path / "cert" / "certificate.pfx"
    keystore.write_bytes(b"")
    assert read(tmp_path, FULL).quic.certificate.file == ""
    quic = structs.replace(BridgeSettings().quic, certificate=CertificateSettings(password="pw"))
    certificate = read(tmp_path, FULL, quic=quic).quic.certificate
    assert (certificate.file, certificate.password) == (str(keystore), "pw")
    keystore.unlink()
    assert read(tmp_path, FULL, quic=quic).quic.certificate.file == ""


def test_this_machines_addresses() -> None:
    assert owt_config._address_of("lo") == "127.0.0.1"
    assert owt_config._address_of("").count(".") == 3
    with pytest.raises(ConfigError, match="network interface nope"):
        owt_config._address_of("nope")


def test_the_command_takes_file_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(FULL)
    ran: list[BridgeSettings] = []

    async def run(settings: BridgeSettings) -> None:
        await asyncio.sleep(0)
        ran.append(settings)

    monkeypatch.setattr("bridges.agent.run", run)
    arguments = ["--owt-config", str(file), "--kinds", "media", "--advertised-host", "mine.example"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (ran[0].kinds, ran[0].media_port, ran[0].public_host) == (("media",), 7701, "mine.example")
    assert CliRunner().invoke(command, ["--node", "amqp"], catch_exceptions=False).exit_code == 0
    assert msgspec.to_builtins(ran[1])["node_carrier"] == "amqp"
    with pytest.raises(SystemExit) as left:
        main(["bridge", "--owt-config", str(file)])
    assert left.value.code == 2


async def test_a_process_that_waits_for_its_clusters_id_stops_when_told() -> None:
    settings = BridgeSettings(
        node_carrier="amqp", amqp=AmqpSettings(url="amqp://127.0.0.1:1", retry_cap=0.05)
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop=stop))
    await asyncio.sleep(0)
    assert not running.done()
    stop.set()
    async with asyncio.timeout(10):
        await running


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_tls_files_that_cannot_be_used_are_one_error(tmp_path: Path, name: str) -> None:
    wrong = tmp_path / "wrong.pem"
    for text in (None, "nonsense"):
        if text is not None:
            wrong.write_text(text)
        amqp = msgspec.convert({"url": "amqps://h", name: str(wrong)}, AmqpSettings)
        with pytest.raises(ConfigError, match=r"bridge\.amqp\.ca_file, cert_file, key_file"):
            check(BridgeSettings(node_carrier="amqp", amqp=amqp))
