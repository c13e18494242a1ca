"""Logging for every process: structured, one event a line, on standard error.

Console style for a person at a terminal, JSON for machines. Loggers are structlog's; values that could be
secrets (see SECRET_KEYS) are masked before they are written, whoever logs them.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["SECRET_KEYS", "LogSettings", "configure"]

SECRET_KEYS: Final = frozenset(
    {"token", "key", "secret", "password", "service_key", "authorization", "room_token", "url_with_password"}
)


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[log]` table."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere."""


def configure(settings: LogSettings, *, process: str) -> None:
    """Send this process's logs, ours and the libraries', to standard error. `process` marks every line."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_secrets,
    ]
    renderer: list[Processor] = (
        # Plain traces: the default ones, drawn by rich, show local variables, and with them secrets.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        cache_logger_on_first_use=False,  # a cached logger would outlive a change of the configuration
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # Libraries that log every request or packet: their word counts only when something is wrong.
    for noisy in (
        "aiohttp.access",
        "alembic",
        "httpx2",
        "httpcore2",
        "quic",
        "uvicorn.access",
        "websockets",
        "libav",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of secret keys, so that a careless log call cannot leak one."""
    for key in event.keys() & SECRET_KEYS:
        event[key] = "***"
    return event
