"""Options that several sub-commands share, so that they read and behave the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from causeway import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

__all__ = ["config_option", "load_settings"]

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T", bound="msgspec.Struct")


def config_option(function: F) -> F:
    """Give a command `--config FILE`, handed over as `config: Path | None`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Settings, TOML; configs/causeway.toml describes them all. "
        "CAUSEWAY_<TABLE>__<KEY> in the environment overrides it.",
    )(function)


def load_settings(spec: type[T], config: Path | None) -> T:
    """Return `spec` from the file, the environment and the defaults; raises ConfigError."""
    return settings.load(spec, file=config, environment=os.environ)
