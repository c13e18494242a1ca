"""Reaching a PostgreSQL server: its settings, one connection, an engine full of them.

The URL is PostgreSQL's own kind and goes to asyncpg as it is, with everything that asyncpg understands of it:
`postgresql://user:password@host1:5432,host2:5432/name?target_session_attrs=read-write&sslmode=verify-full`.
The password of a URL never appears in an error or a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from msgspec import Meta, Struct
from sqlalchemy import NullPool, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine

from causeway.errors import ConfigError, UnavailableError
from control.registry.programs import MINIMUM_MAJOR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.engine import AdaptedConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["DatabaseSettings", "check_server", "connector", "create_engine"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")
_NETWORK_MARGIN: Final = 5.0
"""Seconds beyond the server's own statement timeout after which a silent server counts as gone."""


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[database]`: the registry's PostgreSQL, 15 or newer."""

    url: str = ""
    """postgresql://user:password@host/name, several hosts allowed with `target_session_attrs=read-write`, TLS
    with `sslmode=verify-full`. Better given by the environment (CAUSEWAY_DATABASE__URL) than in a file.
    Default: empty, an embedded server below the state folder."""
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 10
    """Connections held open by one process. Default 10."""
    pool_timeout: Seconds = 5.0
    """Seconds to wait for a free connection. Default 5."""
    connect_timeout: Seconds = 5.0
    """Seconds for connecting, per host. Default 5."""
    statement_timeout: Seconds = 10.0
    """Seconds after which the server gives up a statement. Default 10."""
    lock_timeout: Seconds = 4.0
    """Seconds that a statement waits for a lock; should be below `statement_timeout`. Default 4."""
    idle_timeout: Seconds = 3.0
    """Seconds after which the server gives up a transaction in which nothing happens: its process may be
    frozen, and others wait for what it has locked; should be below `lock_timeout`. Default 3."""


def create_engine(
    url: str, settings: DatabaseSettings | None = None, *, pooled: bool = True, bounded: bool = True
) -> AsyncEngine:
    """Return an engine for `url`; nothing is connected yet. Raises ConfigError for a URL of another kind.

    `pooled=False`: a connection for every use. `bounded=False`: statements may take as long as they need.
    """
    settings = settings or DatabaseSettings()
    connect = connector(url, settings, bounded=bounded)
    if not pooled:
        return create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout,
    )
    event.listen(engine.sync_engine, "checkout", _whole)
    return engine


def _whole(connection: AdaptedConnection, _record: object, _proxy: object) -> None:
    """Have a connection that a failover or a restart cut replaced before it is used.

    asyncpg has noticed by itself; asking the server each time (`pool_pre_ping`) takes three round trips,
    which is more than most of what is done with a connection.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed the connection")


def connector(
    url: str, settings: DatabaseSettings, *, bounded: bool = True, planned_once: bool = False
) -> Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]:
    """Return a function that opens one asyncpg connection, for engines and for LISTEN.

    `planned_once`: a prepared statement keeps its plan, whatever its arguments are, until the statistics of
    its tables change: for connections whose statements look up a few rows by their keys. Raises ConfigError
    for a URL of another kind; the function raises UnavailableError when the server does not take us,
    ConfigError when asyncpg does not understand the URL.
    """
    dsn = _dsn(url)
    session = {
        "application_name": "causeway",
        "lock_timeout": _milliseconds(settings.lock_timeout),
        # What is looked at often is in memory; as if it were not, tables of a thousand rows are read whole.
        "random_page_cost": "1.1",
    }
    if bounded:
        session["statement_timeout"] = _milliseconds(settings.statement_timeout)
        session["idle_in_transaction_session_timeout"] = _milliseconds(settings.idle_timeout)
    if planned_once:
        session["plan_cache_mode"] = "force_generic_plan"

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        try:
            return await asyncpg.connect(
                dsn,
                timeout=settings.connect_timeout,
                command_timeout=settings.statement_timeout + _NETWORK_MARGIN if bounded else None,
                server_settings=session,
            )
        except FileNotFoundError:
            reason = "no such file: the server's socket, or a certificate that the URL names"
            raise UnavailableError(f"database {_place(dsn)}: {reason}") from None
        except (OSError, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched) as error:
            raise UnavailableError(f"database {_place(dsn)}: {_sentence(error, dsn)}") from None
        except asyncpg.InterfaceError as error:
            raise ConfigError(f"database.url: {_sentence(error, dsn)}") from None
        except (ValueError, TypeError):
            # Its text quotes what it did not understand, which may be a part of a password.
            raise ConfigError("database.url: not understood; percent-encode special characters") from None

    return connect


async def check_server(url: str, settings: DatabaseSettings) -> None:
    """Connect once; raises as `connector` does, and ConfigError for a server that is too old."""
    connection = await connector(url, settings)()
    try:
        version = connection.get_server_version()
    finally:
        await connection.close(timeout=settings.connect_timeout)
    if version.major < MINIMUM_MAJOR:
        raise ConfigError(
            f"database {_place(_dsn(url))} is PostgreSQL {version.major}, needed is {MINIMUM_MAJOR} or newer"
        )


def _dsn(url: str) -> str:
    """Return the URL as asyncpg wants it."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigError("database.url: must begin with postgresql://")
    dsn = f"postgresql://{rest}"
    try:
        urlsplit(dsn)
    except ValueError:
        raise ConfigError("database.url: not understood; is a bracket of an IPv6 address missing?") from None
    return dsn


def _place(dsn: str) -> str:
    """Return what may be shown of a URL: hosts and database name."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ["localhost"]))
    return f"{hosts}{parts.path}"


def _sentence(error: Exception, dsn: str) -> str:
    """Return the error's text in one line without the URL's password, whatever the library wrote into it."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    parts = urlsplit(dsn)
    secrets = [parts.netloc.rpartition("@")[0].partition(":")[2]]
    for name in ("password", "sslpassword"):
        secrets += parse_qs(parts.query).get(name, [])
    for secret in secrets:
        for form in {secret, unquote(secret)} - {""}:
            said = said.replace(form, "***")
    return " ".join(said.split())[:300] or type(error).__name__


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
