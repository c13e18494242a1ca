"""The document against the service: whatever schemathesis makes of it is answered as the document says.

A real server on a real database, two clusters behind it. The requests are drawn from the document, valid and
invalid ones, half of them about things that are there.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from causeway.api import Problem, WebhookCreate
from control.http.server import address_of, bind, make_server
from control.registry import webhooks
from control.registry.store import Store
from control.settings import HttpSettings, JoinSettings
from control.webhook_settings import WebhookSettings
from tests.control.service import Service, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from schemathesis import BaseSchema

THOROUGH: Final = settings.get_current_profile_name() == "thorough"
EXAMPLES: Final = 20 if THOROUGH else 2
"""Requests for each operation, in each of the four ways."""
CHECKS: Final = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CLUSTERS_AT_FAULT: Final = {"no-cluster", "cluster-failed", "cluster-timeout"}
THERE: Final = {
    "cluster": "eu-1",
    "conference": "standup",
    "module": "portal",
    "participant": "p1",
    "peer": "us-1",
    "room": "standup",
    "stream": "s1",
    "template": "default",
    "webhook": "wh_0123456789abcdef",
}
"""Parts of paths that name something."""
WEBHOOKS: Final = WebhookSettings(allow_networks=("127.0.0.0/8",), allow_http=True, timeout=1.0)


@asynccontextmanager
async def serving(database_url: str) -> AsyncIterator[tuple[Service, str]]:
    join = JoinSettings(timeout=3, cluster_timeout=1)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(database_url, join=join, webhooks=WEBHOOKS))
        for name, region in (("eu-1", "eu"), ("us-1", "us")):
            cluster = await stack.enter_async_context(service.cluster(name, region=region))
            await cluster.register()
        await service.create("standup")
        hook = WebhookCreate(url="http://127.0.0.1/")
        await Store(service.engine).write(
            webhooks.create, THERE["webhook"], hook, sealed=b"opens for nobody", by="tests", limit=100
        )
        listener = stack.enter_context(bind("127.0.0.1", 0))
        server = make_server(service.control.app, HttpSettings(), stop_timeout=1)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.wait_started()
        host, port = address_of(listener)
        try:
            yield service, f"http://{host}:{port}"
        finally:
            server.should_exit = True
            await task


def examine(service: Service, url: str) -> dict[str, int]:
    """Try every operation; return how often each status was answered. In a thread: schemathesis blocks."""
    schema: BaseSchema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=SchemathesisConfig())
    seen: dict[str, int] = {}
    failures: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        names = {name for name in THERE if f"{{{name}}}" in operation.path}
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for there in (False, True) if names else (False,):
                parts = {name: THERE[name] for name in names} if there else None
                drawn = operation.as_strategy(generation_mode=mode, path_parameters=parts)
                try:
                    attempt(service, url, drawn, seen)
                except Unsatisfiable:  # nothing about this operation can be wrong
                    assert mode is GenerationMode.NEGATIVE
                except (AssertionError, FailureGroup) as error:
                    told = getattr(error, "exceptions", [error])
                    failures += [f"{operation.method} {operation.path}: {each}" for each in told]
    assert not failures, "\n\n".join(failures)
    return seen


def attempt(service: Service, url: str, drawn: Any, seen: dict[str, int]) -> None:
    # Pages of events rather than a stream without an end.
    headers = {"Authorization": f"Bearer {service.keys['operator']}", "Accept": "application/json"}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=drawn)
    def each(case: Any) -> None:
        for field in ("rest_url", "url"):
            if isinstance(case.body, dict) and field in case.body:
                case.body[field] = url  # a drawn address might belong to somebody
        answer = case.call(base_url=url, headers=headers, timeout=20)
        seen[str(answer.status_code)] = seen.get(str(answer.status_code), 0) + 1
        if answer.status_code >= 400:
            problem = msgspec.json.decode(answer.content, type=Problem)
            assert problem.status == answer.status_code
            assert problem.status < 500 or problem.type in CLUSTERS_AT_FAULT, problem
            if problem.type in {"not-found", "method-not-allowed"}:
                return  # a drawn part of a path made it another path
        case.validate_response(answer, checks=CHECKS)

    each()


# The service draws its own numbers meanwhile, in the other thread.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module inside strategies")
@pytest.mark.timeout(1200 if THOROUGH else 180)  # about 15 s on a quiet machine, if not thorough
async def test_every_operation_answers_as_its_document_says(database_url: str) -> None:
    async with serving(database_url) as (service, url):
        seen = await asyncio.to_thread(examine, service, url)
    assert {"200", "201", "204", "404", "409", "422"} <= seen.keys(), seen
