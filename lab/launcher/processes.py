"""The processes of a laboratory: their commands, settings files and environments.

Settings go to files that only their owner can read; what is secret travels in the environment, drawn anew for
every run. Must not know when a process is started or how it is kept running.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from causeway.keys import new_key
from lab.launcher.workplace import toml, write_private
from lab.participant import KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Keys", "Process", "Processes", "Region"]

HOST: Final = "127.0.0.1"
_PREFIX: Final = "CAUSEWAY_"
_KEPT: Final = ("CAUSEWAY_LOG__",)
_KEPT_FOR_CONTROL: Final = (*_KEPT, "CAUSEWAY_DATABASE__")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The access keys of one run, by what they allow."""

    enrolment: str = field(default_factory=lambda: new_key("enrolment"), repr=False)
    application: str = field(default_factory=lambda: new_key("application"), repr=False)
    operator: str = field(default_factory=lambda: new_key("operator"), repr=False)


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region of the laboratory and the cluster in it."""

    name: str
    port: int
    """TCP port of the cluster's management API, portal and node."""
    node_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    service_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cluster(self) -> str:
        """The id of its cluster."""
        return f"lab-{self.name}"

    @property
    def url(self) -> str:
        """Base URL of its cluster."""
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Process:
    """What to run."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)


class Processes:
    """Recipes for the processes of one run, in one directory."""

    def __init__(
        self,
        directory: Path,
        *,
        control_port: int,
        keys: Keys,
        environment: Mapping[str, str],
        agents: bool = True,
    ) -> None:
        """`agents`: bridges take control's orders themselves; without, through their cluster.

        `environment` is the launcher's: PATH and the like are passed on, Causeway's settings are not.

        Except for logging, and for control the database: both are the same for a laboratory as elsewhere.
        """
        self._directory = directory
        self._keys = keys
        self._environment = environment
        self._control_port = control_port
        self._agents = agents
        self.control_url = f"http://{HOST}:{control_port}"

    def control(self) -> Process:
        """Return control, with its own Postgres."""
        tables: dict[str, dict[str, Any]] = {
            "state": {"directory": str(self._directory / "control")},
            "control": {"host": HOST, "port": self._control_port, "stop_timeout": 1},
        }
        secret = {
            "CONTROL__KEYS__ENROLMENT": self._keys.enrolment,
            "CONTROL__KEYS__APPLICATION": self._keys.application,
            "CONTROL__KEYS__OPERATOR": self._keys.operator,
        }
        command = ["-m", "causeway", "control"]
        return self._process("control", command, tables, secret, kept=_KEPT_FOR_CONTROL)

    def cluster(self, region: Region) -> Process:
        """Return the conference cluster of a region."""
        tables = {
            "lab": {
                "cluster": region.cluster,
                "region": region.name,
                "host": HOST,
                "port": region.port,
                "control_url": self.control_url,
                "service_id": f"lab-{region.name}",
                "stop_timeout": 1.5,
            }
        }
        secret = {
            "LAB__ENROLMENT_KEY": self._keys.enrolment,
            "LAB__SERVICE_KEY": region.service_key,
            "LAB__NODE_SECRET": region.node_secret,
        }
        return self._process(f"cluster-{region.name}", ["-m", "lab.cluster"], tables, secret)

    def bridge(self, region: Region) -> Process:
        """Return the event bridge and the media bridge of a region, one process."""
        bridge: dict[str, Any] = {
            "cluster": region.cluster,
            "node_url": f"ws://{HOST}:{region.port}/node",
            "host": HOST,
        }
        secret = {"BRIDGE__NODE_SECRET": region.node_secret}
        if self._agents:
            agent = f"bridge-{region.name}"
            bridge["control"] = {"url": self.control_url, "region": region.name, "agent": agent}
            secret["BRIDGE__CONTROL__KEY"] = self._keys.enrolment
        tables = {"bridge": bridge}
        return self._process(f"bridge-{region.name}", ["-m", "causeway", "bridge"], tables, secret)

    def participant(
        self, region: Region, *, conference: str, publishes: bool, fps: int, media: Path | None
    ) -> Process:
        """Return somebody in a region who publishes, or receives what others publish."""
        name = f"participant-{region.name}"
        command = [
            *("-m", "lab.participant"),
            *("--control-url", self.control_url),
            *("--conference", conference),
            *("--user", name),
            *("--region", region.name),
        ]
        if publishes:
            command += ["--publish", "--fps", str(fps)]
            if media is not None:
                command += ["--media", str(media.absolute())]
        else:
            command += ["--subscribe"]
        environment = self._base(_KEPT) | {KEY_VARIABLE: self._keys.application}
        return Process(name=name, command=_python(command), environment=environment)

    def _process(
        self,
        name: str,
        command: list[str],
        tables: Mapping[str, Mapping[str, Any]],
        secret: Mapping[str, str],
        *,
        kept: tuple[str, ...] = _KEPT,
    ) -> Process:
        file = self._directory / f"{name}.toml"
        write_private(file, toml(tables))
        environment = self._base(kept) | {f"{_PREFIX}{key}": value for key, value in secret.items()}
        return Process(name=name, command=_python([*command, "--config", str(file)]), environment=environment)

    def _base(self, kept: tuple[str, ...]) -> dict[str, str]:
        return {
            name: value
            for name, value in self._environment.items()
            if not name.startswith(_PREFIX) or name.startswith(kept)
        }


def _python(arguments: list[str]) -> list[str]:
    """Run with this interpreter; -P: never import from whatever directory the launcher was started in."""
    return [sys.executable, "-P", *arguments]
