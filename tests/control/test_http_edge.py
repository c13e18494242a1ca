from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from causeway.api import JoinRequest, Problem
from causeway.keys import KINDS, SCOPES, new_key
from control.errors import RefusedError
from control.http.edge import Body, Edge
from control.http.entry import Entry
from control.http.gate import Gate
from control.http.problems import MEDIA_TYPE, PROBLEMS
from control.http.routes import application
from control.registry.credentials import StoredKey
from control.settings import HttpSettings, RateSettings
from tests.control.service import running

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Message

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def problem_of(answer: httpx2.Response) -> Problem:
    """Every refusal is a complete problem document."""
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = msgspec.json.decode(answer.content, type=Problem)
    assert problem.status == answer.status_code
    assert PROBLEMS[problem.type].status == problem.status
    return problem


# --- what needs no service --------------------------------------------------------------------


OPERATOR = StoredKey(id="0" * 12, kind="operator", scopes=frozenset(SCOPES), secret_hash=b"")


class Everybody:
    async def authenticate(self, _header: str | None) -> StoredKey:
        return OPERATOR

    def remembers(self, _header: str | None) -> bool:
        return True


def client_of(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://control.test")


def app_of(handler: Any, **limits: Any) -> Starlette:
    entries = [Entry("POST", "/", None, handler)]
    return application(entries, Gate(Everybody(), RateSettings()), HttpSettings(**limits))


async def test_what_nobody_caught_leaks_nothing_but_an_id(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_request: Request) -> Response:
        raise RuntimeError("secret detail")

    answer = await client_of(app_of(broken)).post("/")
    problem = problem_of(answer)
    assert (problem.status, problem.type) == (500, "internal-error")
    assert re.fullmatch(r"urn:causeway:error:[0-9a-f]{16}", problem.instance)
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    assert problem.instance in capsys.readouterr().out


async def test_a_client_that_hangs_up_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def reading(request: Request) -> Response:
        await request.body()
        return Response()

    async def hung_up() -> Message:
        return {"type": "http.disconnect"}

    async def nowhere(message: Message) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await app_of(reading)(scope, hung_up, nowhere)
    logged = capsys.readouterr().out
    assert "request.abandoned" in logged
    assert "Traceback" not in logged


async def test_an_answer_that_has_begun_is_broken_off() -> None:
    async def half(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await client_of(Edge(half, max_requests=1, max_body_bytes=1)).get("/")


async def test_more_requests_than_allowed_are_told_to_wait() -> None:
    inside: list[httpx2.Response] = []

    async def nested(_request: Request) -> Response:
        inside.append(await client_of(app).post("/"))
        return Response()

    app = app_of(nested, max_requests=1)
    client = client_of(app)
    assert (await client.post("/")).status_code == 200
    assert problem_of(inside[0]).type == "overloaded"
    assert inside[0].headers["retry-after"] == "1"
    assert (await client.post("/")).status_code == 200


async def test_a_body_without_a_length_is_limited_too() -> None:
    taken: list[int] = []

    async def read(request: Request) -> Response:
        taken.append(len(await request.body()))
        return Response()

    async def chunks(count: int) -> Any:
        for _ in range(count):
            yield b"x" * 512

    client = client_of(app_of(read, max_body_bytes=1024))
    assert (await client.post("/", content=chunks(2))).status_code == 200
    assert problem_of(await client.post("/", content=chunks(3))).type == "body-too-large"
    assert problem_of(await client.post("/", content=b"x" * 1025)).type == "body-too-large"
    assert taken == [1024]


def test_every_refusal_has_a_problem_type() -> None:
    def all_of(kind: type[RefusedError]) -> list[type[RefusedError]]:
        return [kind, *(each for sub in kind.__subclasses__() for each in all_of(sub))]

    codes = {kind.code for kind in all_of(RefusedError)[1:]}
    assert codes <= PROBLEMS.keys()


def test_the_documentation_lists_exactly_these_problems() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (\d+) \| (.+) \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {name: (int(status), title, advice) for name, status, title, advice in rows}
    assert documented == {name: tuple(kind) for name, kind in PROBLEMS.items()}


# --- the service's own routes -----------------------------------------------------------------

PARTS = {
    "cluster": "eu-1",
    "module": "portal",
    "room": "r",
    "participant": "p",
    "peer": "us-1",
    "conference": "c",
    "key": "0123456789ab",
    "secret": "no-key",
    "stream": "s1",
    "template": "t",
    "agent": "a-1",
    "message": "evt_1",
    "webhook": "wh_1",
}


OPEN = {
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs/page.js",
    "/docs/page.css",
    "/.well-known/jwks.json",
}


async def test_every_route_admits_exactly_its_kinds_of_keys(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for entry in service.control.entries:
            path = entry.path.format(**PARTS)
            for kind in KINDS:
                answer = await service.clients[kind].request(entry.method, path)
                refused = answer.status_code in {401, 403} and entry.tag != "owt"  # its key is in the path
                assert refused == (entry.kinds is not None and kind not in entry.kinds), (entry, kind)
                if refused:
                    assert problem_of(answer).type == "forbidden"
            if entry.kinds is not None:
                for header in ({}, {"Authorization": f"Bearer {new_key('operator')}"}):
                    answer = await service.nobody.request(entry.method, path, headers=header)
                    assert problem_of(answer).type == "unauthenticated"
                    assert answer.headers["www-authenticate"] == "Bearer"
        open_paths = {entry.path for entry in service.control.entries if entry.kinds is None}
        keyed = ("/owt/{secret}/", "/openvidu/{secret}/")  # the key is a part of these paths
        assert {path for path in open_paths if not path.startswith(keyed)} == OPEN


async def test_paths_and_methods_that_are_not(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        assert problem_of(await service.nobody.get("/")).type == "not-found"
        assert problem_of(await service.operator.get("/v1/conferences/")).type == "not-found"
        answer = await service.operator.post("/v1/clusters/eu-1")
        assert problem_of(answer).type == "method-not-allowed"
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "PATCH", "DELETE"}
        for path in (
            "/v1/conferences/a%20b",
            "/v1/clusters/%00",
            "/v1/clusters/" + "x" * 200,
            "/v1/conferences/-x",
        ):
            assert problem_of(await service.operator.get(path)).type == "invalid-request", path


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "malformed-json"),
        (b"{", "malformed-json"),
        (b'{"user":"\xff"}', "malformed-json"),
        (b'{"user":"a"} x', "malformed-json"),
        (b'{"user":"a","x":' + b"[" * 30000 + b"]" * 30000 + b"}", "invalid-request"),
        (b"[]", "invalid-request"),
        (b"{}", "invalid-request"),
        (b'{"user":""}', "invalid-request"),
        (b'{"user":1}', "invalid-request"),
        (b'{"user":"a","unknown":1}', "invalid-request"),
        (b'{"user":"a\\u0000b"}', "invalid-request"),
        (b'{"user":"' + b"a" * 70000 + b'"}', "body-too-large"),
    ],
)
async def test_bodies_that_are_refused(database_url: str, body: bytes, expected: str) -> None:
    async with running(database_url, background=False) as service:
        await service.create("c")
        answer = await service.application.post("/v1/conferences/c/join", content=body)
        assert problem_of(answer).type == expected, answer.text


async def test_content_types(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for media, status in (
            ("application/json; charset=utf-8", 201),
            ("text/json", 200),
            ("application/merge-patch+json", 200),
        ):
            answer = await service.application.post(
                "/v1/conferences", content=b'{"id":"c"}', headers={"content-type": media}
            )
            assert answer.status_code == status, media
        refused = await service.application.post(
            "/v1/conferences", content=b'{"id":"c"}', headers={"content-type": "text/plain"}
        )
        assert problem_of(refused).type == "unsupported-media-type"
        assert (await service.application.post("/v1/conferences")).status_code == 201


async def test_conferences_are_made_shown_and_listed(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for name, status in (("b", 201), ("a", 201), ("b", 200)):
            answer = await service.application.post("/v1/conferences", json={"id": name})
            assert (answer.status_code, answer.json()["id"], answer.json()["state"]) == (
                status,
                name,
                "active",
            )
        page = (await service.application.get("/v1/conferences")).json()
        assert ([each["id"] for each in page["conferences"]], page["next"]) == (["b", "a"], None)
        assert (await service.application.head("/v1/conferences")).status_code == 200
        generated = (await service.application.post("/v1/conferences", json={})).json()["id"]
        assert generated not in {"a", "b"}
        assert problem_of(await service.application.get("/v1/conferences/nope")).type == "conference-unknown"
        assert (await service.application.delete("/v1/conferences/nope")).status_code == 204
        assert (await service.application.delete("/v1/conferences/a")).status_code == 202
        assert (await service.application.delete("/v1/conferences/a")).status_code == 202
        assert (
            problem_of(await service.application.post("/v1/conferences", json={"id": "a"})).type
            == "conference-ending"
        )


async def test_health(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        assert (await service.nobody.get("/healthz")).json() == {"status": "alive"}
        assert (await service.nobody.get("/readyz")).json() == {"status": "ready"}
        async with service.engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
        answer = await service.nobody.get("/readyz")
        assert problem_of(answer).type == "database-unavailable"
        assert (await service.nobody.get("/healthz")).status_code == 200


async def test_secrets_are_sealed_in_the_tables_and_appear_in_no_log(
    database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        token = (await service.join("standup")).json()["token"]
        await eu.enter("standup", "p")
        await eu.send("PUT", "/rooms/standup", {"token": "x" * 600})
        secrets = [
            eu.stub.service_key,
            "room-token-of-eu-1",
            token,
            *(k.rpartition("_")[2] for k in service.keys.values()),
        ]
        async with service.engine.connect() as connection:
            tables = (
                await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
            ).all()
            rows = [
                str(row)
                for table in tables
                for row in (await connection.scalars(text(f"SELECT row_to_json(t) FROM {table} t"))).all()
            ]
        everything = "\n".join(rows)
        assert "standup" in everything
        for secret in secrets:
            for form in (secret, secret.encode().hex()):
                assert form not in everything
    out, err = capfd.readouterr()
    assert "cluster.registered" in out + err
    for secret in secrets:
        assert secret not in out + err


async def test_a_body_that_comes_in_parts_is_read_whole_and_as_often_as_it_is_asked_for() -> None:
    parts = [(b'{"user"', True), (b"", True), (b': "ada"}', False)]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": more} for body, more in parts
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    request = Request({"type": "http", "headers": []}, receive)
    reader = Body(JoinRequest)
    assert [await reader.read(request), await reader.read(request)] == [JoinRequest(user="ada")] * 2


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_not_taken_at_its_word() -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{}", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        await Body(JoinRequest).read(Request({"type": "http"}, receive))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(st.sampled_from(["user", "role", "region"]), x, max_size=3)
        ),
    ).map(lambda v: json.dumps(v).encode())
)
async def test_any_body_is_a_request_or_one_of_three_problems(body: bytes) -> None:
    reader = Body(JoinRequest)

    async def take(request: Request) -> Response:
        assert isinstance(await reader.read(request), JoinRequest)
        return Response()

    answer = await client_of(app_of(take)).post("/", content=body)
    assert answer.status_code == 200 or problem_of(answer).type in {"malformed-json", "invalid-request"}
