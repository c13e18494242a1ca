from __future__ import annotations

import asyncio
import base64

import pytest

from causeway.keys import SCOPES, parse_key
from tests.control.service import Service, running, until
from tests.control.test_http_edge import problem_of


async def made(service: Service, **wish: object) -> dict[str, str]:
    answer = await service.operator.post("/v1/keys", json=wish)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    created: dict[str, str] = answer.json()
    return created


async def refused(service: Service, key: str) -> None:
    """Wait until the key is not taken any more, less long than a key is remembered for."""
    await until(
        lambda: service.nobody.get("/v1/conferences", headers=bearer(key)),
        lambda answer: answer.status_code == 401,
        timeout=3,
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_shown_once_works_and_is_revoked(database_url: str) -> None:
    async with running(database_url) as service:
        created = await made(service, kind="application", name="the shop")
        text = created.pop("key")
        key = parse_key(text)
        assert key is not None
        operator = parse_key(service.keys["operator"])
        assert operator is not None
        shown = (await service.operator.get(f"/v1/keys/{key.id}")).json()
        assert shown == created
        assert (shown["id"], shown["kind"], shown["name"]) == (key.id, "application", "the shop")
        assert (shown["created_by"], shown["revoked_at"], shown["last_used_at"]) == (operator.id, None, None)
        assert shown["scopes"] == list(SCOPES)
        assert (await service.nobody.get("/v1/conferences", headers=bearer(text))).status_code == 200
        for _ in range(2):
            assert (await service.operator.delete(f"/v1/keys/{key.id}")).status_code == 204
        assert (await service.operator.get(f"/v1/keys/{key.id}")).json()["revoked_at"] is not None
        audit = (await service.operator.get("/v1/audit", params={"subject": f"key:{key.id}"})).json()
        assert [(each["actor"], each["action"]) for each in audit["entries"]] == [
            (f"operator:{operator.id}", "revoked"),
            (f"operator:{operator.id}", "created"),
        ]
        assert key.secret not in str(audit)
        await refused(service, text)


async def test_a_revocation_is_heard_by_the_other_replica(database_url: str) -> None:
    master = base64.b64encode(bytes(32)).decode()
    async with (
        running(database_url, master_key=master) as one,
        running(database_url, master_key=master) as two,
    ):
        text = (await made(one, kind="application", name="x"))["key"]
        for service in (one, two):
            assert (await service.nobody.get("/v1/conferences", headers=bearer(text))).status_code == 200
        key = parse_key(text)
        assert key is not None
        await one.operator.delete(f"/v1/keys/{key.id}")
        for service in (one, two):
            await refused(service, text)


async def test_scopes_limit_an_application_key(database_url: str) -> None:
    calls = {
        "conferences:read": ("GET", "/v1/conferences"),
        "conferences:write": ("POST", "/v1/conferences"),
        "join": ("POST", "/v1/conferences/c/join"),
    }
    async with running(database_url, background=False) as service:
        for scope in SCOPES:
            text = (await made(service, kind="application", name=scope, scopes=[scope, scope]))["key"]
            for wanted, (method, path) in calls.items():
                answer = await service.nobody.request(method, path, headers=bearer(text))
                assert (answer.status_code == 403) == (wanted != scope), (scope, wanted)
                if answer.status_code == 403:
                    assert wanted in problem_of(answer).detail


@pytest.mark.parametrize(
    "wish",
    [
        {"kind": "application"},
        {"kind": "application", "name": ""},
        {"kind": "application", "name": "a\nb"},
        {"kind": "root", "name": "a"},
        {"kind": "operator", "name": "a", "scopes": ["join"]},
        {"kind": "application", "name": "a", "scopes": []},
        {"kind": "application", "name": "a", "scopes": ["everything"]},
        {"kind": "application", "name": "a", "id": "0123456789ab"},
    ],
)
async def test_wishes_that_are_refused(database_url: str, wish: dict[str, object]) -> None:
    async with running(database_url, background=False) as service:
        before = (await service.operator.get("/v1/keys")).json()
        assert problem_of(await service.operator.post("/v1/keys", json=wish)).type == "invalid-request"
        assert (await service.operator.get("/v1/keys")).json() == before


async def test_the_list_is_paged_and_filtered(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        ids = [(await made(service, kind="enrolment", name=f"k{n}"))["id"] for n in range(5)]
        await service.operator.delete(f"/v1/keys/{ids[1]}")
        pages, cursor = [], None
        while True:
            query = {"kind": "enrolment", "limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = (await service.operator.get("/v1/keys", params=query)).json()
            pages.append([key["id"] for key in page["keys"]])
            cursor = page["next"]
            if cursor is None:
                break
        enrolment = parse_key(service.keys["enrolment"])
        assert enrolment is not None
        assert pages == [[enrolment.id, ids[0]], [ids[2], ids[3]], [ids[4]]]
        every = (await service.operator.get("/v1/keys", params={"revoked": "true"})).json()["keys"]
        assert len(every) == 8
        assert [key["id"] for key in every if key["revoked_at"]] == [ids[1]]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=2",
        "revoked=perhaps",
        "kind=root",
        "x=1",
        "cursor=abc",
        "cursor=",
    ],
)
async def test_queries_that_are_refused(database_url: str, query: str) -> None:
    async with running(database_url, background=False) as service:
        assert problem_of(await service.operator.get(f"/v1/keys?{query}")).type == "invalid-request"


async def test_paths_without_parameters_refuse_any(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        answer = await service.operator.get("/v1/keys/0123456789ab?x=1")
        assert problem_of(answer).type == "invalid-request"


async def test_keys_that_are_not_there(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for method in ("GET", "DELETE"):
            answer = await service.operator.request(method, "/v1/keys/0123456789ab")
            assert problem_of(answer).type == "key-unknown"
            answer = await service.operator.request(method, "/v1/keys/xyz")
            assert problem_of(answer).type == "invalid-request"


async def test_a_key_revoked_while_it_is_looked_up_is_not_remembered(database_url: str) -> None:
    async with running(database_url) as service:
        text = (await made(service, kind="application", name="x"))["key"]
        key = parse_key(text)
        assert key is not None
        await asyncio.gather(
            *(service.nobody.get("/v1/conferences", headers=bearer(text)) for _ in range(5)),
            service.operator.delete(f"/v1/keys/{key.id}"),
        )
        await refused(service, text)
