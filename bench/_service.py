"""The central service in a process of its own, with a route that answers a constant beside the real ones.

Started as `python -m bench._service FOLDER KEYS`, with its own Postgres in that folder; a further replica as
`python -m bench._service FOLDER KEYS DATABASE PORT`, on the first one's database and port. Prints one line of
JSON when it serves, ends with its standard input. The constant goes through the same server, limits and
router, and does nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import uvloop
from starlette.responses import Response

from bench._cpu import postgres_of
from control.app import build, settle_memory
from control.http.entry import Entry
from control.http.gate import Gate
from control.http.routes import application
from control.http.server import address_of, bind, make_server
from control.rate_settings import ApplicationRate, EnrolmentRate, OperatorRate, RateSettings
from control.registry.database import DatabaseSettings, StateSettings, ensure_schema, open_database
from control.registry.store import Store
from control.security.credentials import Authenticator
from control.settings import (
    ControlSettings,
    KeySettings,
    LeaseSettings,
    Settings,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

CONSTANT: Final = "/constant"
_PLENTY: Final[dict[str, int]] = {"rate": 1_000_000, "burst": 1_000_000}


async def _constant(request: Request) -> Response:
    await request.body()
    return Response(b'{"ip":"127.0.0.1","port":8080,"room":"r"}', media_type="application/json")


def _with_constant(app: ASGIApp, gate: Gate, settings: ControlSettings) -> ASGIApp:
    constant = application([Entry("POST", CONSTANT, None, _constant)], gate, settings.http)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (constant if scope.get("path") == CONSTANT else app)(scope, receive, send)

    return both


async def _serve(folder: Path, keys: dict[str, str], database_url: str, port: int) -> None:
    own = ControlSettings(
        keys=KeySettings(**keys),
        lease=LeaseSettings(ttl=3600),
        rate=RateSettings(
            enrolment=EnrolmentRate(**_PLENTY),
            application=ApplicationRate(**_PLENTY),
            operator=OperatorRate(**_PLENTY),
        ),
    )
    settings = Settings(control=own, state=StateSettings(directory=str(folder)))
    loop = asyncio.get_running_loop()
    with closing(bind("127.0.0.1", port, share=True)) as listener:
        async with open_database(DatabaseSettings(url=database_url), settings.state) as database:
            await ensure_schema(database)
            async with build(settings, database) as control, asyncio.TaskGroup() as group:
                background = group.create_task(control.run())
                gate = Gate(Authenticator(Store(database.engine)), own.rate)
                server = make_server(_with_constant(control.app, gate, own), own.http, stop_timeout=1)
                serving = group.create_task(server.serve(sockets=[listener]))
                await server.wait_started()
                settle_memory()
                ready = {
                    "port": address_of(listener)[1],
                    "database": database.url,
                    "pid": os.getpid(),
                    "postgres": None if database_url else postgres_of(folder),
                }
                sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
                sys.stdout.flush()
                await loop.run_in_executor(None, sys.stdin.read)
                server.should_exit = True
                await serving
                background.cancel()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    _folder, _keys, _database, _port = [*sys.argv[1:], "", "0"][:4]
    uvloop.run(_serve(Path(_folder), msgspec.json.decode(_keys), _database, int(_port)))
