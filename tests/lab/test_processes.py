from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bridges.settings import Settings as BridgeSettings
from causeway.settings import load
from lab.launcher.processes import Keys, Process, Processes, Region
from lab.participant import KEY_VARIABLE, parse
from lab.settings import Settings as LabSettings

KEYS = Keys()
REGION = Region(name="eu-west", port=4711)
ENVIRONMENT = {
    "PATH": "/bin",
    "CAUSEWAY_CONTROL__PORT": "1",
    "CAUSEWAY_DATABASE__URL": "postgresql://somewhere",
    "CAUSEWAY_LOG__LEVEL": "debug",
}


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path, control_port=8400, keys=KEYS, environment=ENVIRONMENT)


def settings_file(process: Process) -> Path:
    return Path(process.command[process.command.index("--config") + 1])


def tables(process: Process) -> dict[str, Any]:
    return tomllib.loads(settings_file(process).read_text())


def everyone(processes: Processes) -> list[Process]:
    return [
        processes.control(),
        processes.cluster(REGION),
        processes.bridge(REGION),
        processes.participant(REGION, conference="c", publishes=True, fps=25, media=None),
    ]


def test_no_secret_is_on_a_command_line_in_a_file_or_in_a_repr(processes: Processes, tmp_path: Path) -> None:
    secrets = [KEYS.enrolment, KEYS.application, KEYS.operator, REGION.node_secret, REGION.service_key]
    shown = [text for process in everyone(processes) for text in (*process.command, repr(process))]
    shown += [repr(KEYS), repr(REGION), *(file.read_text() for file in tmp_path.iterdir())]
    assert not [secret for secret in secrets if any(secret in text for text in shown)]


def test_settings_files_are_private(processes: Processes, tmp_path: Path) -> None:
    everyone(processes)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_the_launchers_settings_do_not_leak_into_its_children(processes: Processes) -> None:
    control, *others = everyone(processes)
    for process in (control, *others):
        assert "CAUSEWAY_CONTROL__PORT" not in process.environment
        assert process.environment["CAUSEWAY_LOG__LEVEL"] == "debug"
        assert process.environment["PATH"] == "/bin"
    assert "CAUSEWAY_DATABASE__URL" in control.environment
    assert not [process for process in others if "CAUSEWAY_DATABASE__URL" in process.environment]


def test_each_process_only_gets_the_keys_that_it_needs(processes: Processes) -> None:
    _, cluster, bridge, participant = everyone(processes)
    assert KEYS.operator not in {*cluster.environment.values(), *bridge.environment.values()}
    assert KEYS.application not in {*cluster.environment.values(), *bridge.environment.values()}
    assert KEYS.enrolment not in participant.environment.values()
    assert participant.environment[KEY_VARIABLE] == KEYS.application


def test_bridges_are_agents_unless_told_otherwise(processes: Processes, tmp_path: Path) -> None:
    process = processes.bridge(REGION)
    bridge = load(BridgeSettings, file=settings_file(process), environment=process.environment).bridge
    assert (bridge.control.url, bridge.control.key) == (processes.control_url, KEYS.enrolment)
    assert (bridge.control.region, bridge.control.agent) == ("eu-west", "bridge-eu-west")
    without = Processes(tmp_path, control_port=8400, keys=KEYS, environment=ENVIRONMENT, agents=False)
    process = without.bridge(REGION)
    assert "control" not in tables(process)["bridge"]
    assert KEYS.enrolment not in process.environment.values()


def test_control_keeps_its_state_below_the_directory(processes: Processes, tmp_path: Path) -> None:
    assert tables(processes.control())["state"]["directory"] == str(tmp_path / "control")


def test_the_processes_accept_their_settings(processes: Processes) -> None:
    cluster, bridge = processes.cluster(REGION), processes.bridge(REGION)
    lab = load(LabSettings, file=settings_file(cluster), environment=cluster.environment).lab
    ours = load(BridgeSettings, file=settings_file(bridge), environment=bridge.environment).bridge
    assert lab.cluster == ours.cluster == REGION.cluster
    assert lab.node_secret == ours.node_secret == REGION.node_secret
    assert (lab.enrolment_key, lab.service_key, lab.port) == (KEYS.enrolment, REGION.service_key, 4711)
    assert ours.node_url == f"ws://{lab.host}:{lab.port}/node"


def test_participants_accept_their_options(processes: Processes, tmp_path: Path) -> None:
    publisher = processes.participant(
        REGION, conference="c", publishes=True, fps=30, media=tmp_path / "film.mp4"
    )
    options = parse(publisher.command[publisher.command.index("lab.participant") + 1 :])
    assert (options.publish, options.subscribe, options.fps) == (True, False, 30)
    assert options.media == tmp_path / "film.mp4"
    subscriber = processes.participant(REGION, conference="c", publishes=False, fps=30, media=None)
    options = parse(subscriber.command[subscriber.command.index("lab.participant") + 1 :])
    assert (options.publish, options.subscribe, options.region) == (False, True, "eu-west")


def test_every_run_draws_its_own_secrets() -> None:
    assert Keys() != Keys()
    assert Region(name="x", port=1).node_secret != Region(name="x", port=1).node_secret
