"""Where a laboratory keeps its files, and the ports that it takes. Must not know what the files mean.

The directory is either the user's (`--state`), then it stays, or a temporary one, then it goes. Both can be
traversed by everybody, because Postgres does not run as root and becomes another user; the files in it that
hold settings are readable by their owner only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["free_ports", "region_names", "require_free", "toml", "workplace", "write_private"]

_REGIONS: Final = (
    "eu-west",
    "us-east",
    "ap-south",
    "sa-east",
    "af-south",
    "ap-northeast",
    "us-west",
    "eu-north",
)
_LOOPBACK: Final = "127.0.0.1"


def region_names(count: int) -> list[str]:
    """Return `count` names of regions: well-known ones first, then region-9, region-10."""
    return [*_REGIONS[:count], *(f"region-{n}" for n in range(len(_REGIONS) + 1, count + 1))]


@contextlib.contextmanager
def workplace(state: Path | None) -> Iterator[Path]:
    """Give an absolute directory for one laboratory; raises ConfigError when `state` cannot be used.

    A directory that is given is made if need be, locked against a second laboratory, and kept. Without one a
    temporary directory is made, and removed at the end.
    """
    if state is None:
        directory = Path(tempfile.mkdtemp(prefix="causeway-lab-"))
        try:
            directory.chmod(0o711)
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return
    directory = state.absolute()
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"--state {state}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--state {state}: another laboratory uses it") from None
        yield directory
    finally:
        os.close(lock)


def require_free(port: int) -> None:
    """Raise ConfigError when somebody listens on this TCP port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier run that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used ({error.strerror}); choose one: --port N"
            ) from None


def free_ports(count: int) -> list[int]:
    """Return TCP ports of the loopback address that nobody uses at this moment, all different."""
    with contextlib.ExitStack() as open_sockets:
        probes = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((_LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whatever was there before."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        target.write(text)
    draft.replace(file)


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of strings, numbers, booleans, lists of them and further tables as TOML."""
    lines: list[str] = []
    for name, table in tables.items():
        _write_table(name, table, lines)
    return "\n".join(lines) + "\n"


def _write_table(name: str, table: Mapping[str, Any], lines: list[str]) -> None:
    lines.append(f"[{name}]")
    lines.extend(f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict))
    for key, value in table.items():
        if isinstance(value, dict):
            _write_table(f"{name}.{key}", value, lines)


def _value(value: Any) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
