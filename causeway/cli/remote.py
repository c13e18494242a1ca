"""What the commands that talk to control share: where it is, the key, and how answers are shown.

The key comes from the environment or a file, never from an option: other users of the machine see arguments.
"""

from __future__ import annotations

import asyncio
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from causeway.client import ControlClient

__all__ = ["Remote", "remote_options"]

_URL: Final = "http://127.0.0.1:8400"
_MAX_KEY_BYTES: Final = 4096
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A control service, as the options say. The key is read when it is needed."""

    url: str
    key_file: Path | None
    as_json: bool

    def run(self, work: Callable[[ControlClient], Awaitable[T]]) -> T:
        """Return what `work` makes of a client. Raises ApiError, UnavailableError and ConfigError."""
        # Here, not above: --help needs none of it.
        from causeway.client import ControlClient  # noqa: PLC0415

        async def main() -> T:
            async with ControlClient(self.url, key) as client:
                return await work(client)

        key = _read_key(self.key_file)
        return asyncio.run(main())

    def run_all(self, work: Callable[[ControlClient], AsyncIterator[T]]) -> list[T]:
        """Return everything that `work` goes through."""

        async def collect(client: ControlClient) -> list[T]:
            return [each async for each in work(client)]

        return self.run(collect)

    def show(self, value: Any, draw: Callable[[Any], None]) -> None:
        """Write the value as JSON, or have it drawn."""
        if self.as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
        else:
            draw(value)

    def done(self, sentence: str) -> None:
        """Say that something was done, where nothing else is to be shown; JSON readers have the exit code."""
        if not self.as_json:
            click.echo(sentence)


def remote_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options to reach control, handed over as `remote: Remote`."""

    @click.option(
        "--url",
        envvar="CAUSEWAY_URL",
        default=_URL,
        show_default=True,
        metavar="URL",
        help="Where control is; also CAUSEWAY_URL.",
    )
    @click.option(
        "--key-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="File with the access key. Without it the key is taken from CAUSEWAY_KEY.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
    @functools.wraps(function)
    def command(*, url: str, key_file: Path | None, as_json: bool, **rest: Any) -> Any:
        return function(remote=Remote(url=url, key_file=key_file, as_json=as_json), **rest)

    return command


def _read_key(file: Path | None) -> str:
    if file is None:
        key = os.environ.get("CAUSEWAY_KEY", "")
        if not key:
            raise ConfigError("no access key: set CAUSEWAY_KEY, or name a file with --key-file")
        return key.strip()
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_KEY_BYTES).decode("ascii").strip()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: holds no access key") from None
