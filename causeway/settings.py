"""Typed settings from one TOML file, the environment and defaults.

A process describes its settings as a frozen msgspec struct whose fields are the file's tables, each again a
struct. `load` fills it: defaults, then the file, then the environment. One file may serve every process:
tables that belong to another process are skipped, unknown ones are refused. This module must not know any
process's settings, only the names of the tables.

Environment: `CAUSEWAY_<TABLE>__<KEY>` (two underscores), for example `CAUSEWAY_DATABASE__URL`; deeper keys
go on likewise: `CAUSEWAY_CONTROL__LEASE__TTL=15`. A list is written as JSON: `CAUSEWAY_BRIDGE__ALPN=["h3"]`.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ENVIRONMENT_PREFIX", "MAX_FILE_BYTES", "TABLES", "load", "read_toml"]

ENVIRONMENT_PREFIX: Final = "CAUSEWAY_"
MAX_FILE_BYTES: Final = 1 << 20
TABLES: Final = frozenset({"state", "database", "control", "bridge", "lab", "edge", "log"})
"""Every top-level table that some Causeway process reads."""

T = TypeVar("T", bound=msgspec.Struct)


def load(spec: type[T], *, file: Path | None, environment: Mapping[str, str]) -> T:
    """Return `spec` filled from `file` and `environment`.

    Raises ConfigError for a file that cannot be read or parsed, for an unknown table or key, and for a value
    of the wrong type or out of range; the message names the setting.
    """
    values = read_toml(file) if file is not None else {}
    own = frozenset(spec.__struct_fields__)
    for name in values.keys() - TABLES:
        raise ConfigError(f"{file}: unknown table [{name}]; there are {', '.join(sorted(TABLES))}")
    merged: dict[str, Any] = {name: table for name, table in values.items() if name in own}
    _overlay(merged, environment, own)
    try:
        # Not strict, because the environment only has text: "10" is a number where a number is wanted.
        return msgspec.convert(merged, spec, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{_origin(str(error), file, environment)}{error}") from None


def _origin(message: str, file: Path | None, environment: Mapping[str, str]) -> str:
    """Return who said what `message` complains about: the variable, where there is one, or else the file."""
    place = re.search(r"at `\$\.([\w.]+)", message)
    variable = ENVIRONMENT_PREFIX + place[1].replace(".", "__").upper() if place else ""
    if variable in environment:
        return f"{variable}: "
    return f"{file}: " if file is not None else ""


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ConfigError when it is too large, missing, or no TOML."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None


def _overlay(values: dict[str, Any], environment: Mapping[str, str], tables: frozenset[str]) -> None:
    """Put `CAUSEWAY_TABLE__KEY` variables over `values`, in place."""
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        table, *keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if table not in TABLES:
            raise ConfigError(f"{name}: unknown table [{table}]; there are {', '.join(sorted(TABLES))}")
        if table not in tables:
            continue
        target = values.setdefault(table, {})
        for key in keys[:-1]:
            target = target.setdefault(key, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise ConfigError(f"{name}: goes through a setting that is a value")
        target[keys[-1]] = _value(name, text)


def _value(name: str, text: str) -> Any:
    if not text.startswith("["):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name}: not a JSON list: {error}") from None
