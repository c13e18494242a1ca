"""The templates of the first start: read from a file, checked, and saved where none of that name ever was."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from causeway.api import DEFAULT_TEMPLATE, Template, TemplateName
from causeway.errors import ConfigError
from control.registry import templates

if TYPE_CHECKING:
    from control.registry.store import Store

__all__ = ["MAX_FILE_BYTES", "SEED_FILE", "read_templates", "seed_templates"]

_log = structlog.get_logger(__name__)

MAX_FILE_BYTES: Final = 1 << 20


def _shipped() -> Path:
    installed = Path(__file__).parent / "templates.toml"  # where a wheel has it
    return installed if installed.exists() else Path(__file__).parents[1] / "configs" / "templates.toml"


SEED_FILE: Final = _shipped()
"""The templates that come with Causeway."""


def read_templates(file: Path) -> dict[str, Template]:
    """Return the templates in the file, by name.

    The file is TOML with a table `[<name>]` for each, of the fields of causeway.api.Template. One named
    `default` must be among them. Raises ConfigError, which names the template and the field.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    found: dict[str, Template] = {}
    for name, table in tables.items():
        try:
            found[msgspec.convert(name, TemplateName)] = msgspec.convert(table, Template)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{file}: [{name}]: {error}") from None
    if DEFAULT_TEMPLATE not in found:
        raise ConfigError(f"{file}: there must be a template [{DEFAULT_TEMPLATE}]")
    return found


async def seed_templates(store: Store, file: str) -> None:
    """Save the file's templates (empty: those of SEED_FILE), leaving alone all that ever were there.

    Raises ConfigError and DatabaseUnavailableError.
    """
    found = read_templates(_chosen(file))
    made = await store.write(templates.seed, found)
    if made:
        _log.info("templates.seeded", names=made)


def _chosen(file: str) -> Path:
    return Path(file).expanduser() if file else SEED_FILE
