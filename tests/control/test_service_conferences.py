"""Conferences and templates over HTTP, and what of them reaches the clusters."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, update

from control.conference_settings import ConferenceSettings
from control.registry.tables import conferences
from tests.control.service import Service, running, until

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

KEY = base64.b64encode(b"k" * 32).decode()
QUICK = ConferenceSettings(sweep_interval=0.05)


def refused(answer: httpx2.Response, status: int, name: str, *words: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, name), answer.text
    for word in words:
        assert word in answer.json()["detail"]


async def post(service: Service, **body: Any) -> httpx2.Response:
    return await service.application.post("/v1/conferences", json=body)


# --- conferences ------------------------------------------------------------------------------


async def test_a_conference_from_creation_to_its_end(database_url: str) -> None:
    async with running(database_url, conference=QUICK) as service:
        made = await post(service, id="standup", metadata={"tenant": "blue"}, participant_limit=5)
        assert made.status_code == 201
        assert made.json()["type"] == "default"
        assert made.json()["template_version"] == 1
        again = await post(service, id="standup", metadata={"tenant": "blue"})
        assert (again.status_code, again.headers["etag"]) == (200, made.headers["etag"])
        refused(await post(service, id="standup", metadata={}), 409, "conference-exists", "metadata")
        generated = await post(service)
        assert generated.status_code == 201
        assert (await service.application.get(f"/v1/conferences/{generated.json()['id']}")).status_code == 200
        # Nobody is ever in it: in the database's eyes a day passes.
        async with service.engine.begin() as connection:
            await connection.execute(
                update(conferences)
                .where(conferences.c.id == "standup")
                .values(empty_since=func.now() - func.make_interval(0, 0, 0, 2))
            )

        async def look() -> int:
            return (await service.application.get("/v1/conferences/standup")).status_code

        assert await until(look, lambda status: status == 404) == 404


async def test_an_expired_conference_loses_its_rooms(database_url: str) -> None:
    async with (
        running(database_url, conference=QUICK) as service,
        service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        assert (await post(service, id="c", empty_ttl=600)).status_code == 201
        assert (await service.join("c")).status_code == 200
        await eu.enter("c", "p1")
        shown = await service.conference("c")
        assert (shown["empty_since"], shown["expires_at"]) == (None, None)
        await eu.report("DELETE", "/rooms/c/participants/p1")
        await service.application.patch("/v1/conferences/c", json={"empty_ttl": 1})
        await eu.stub.wait_for(lambda: bool(eu.stub.made("delete_room")))
        assert "c" not in eu.stub.rooms


async def test_a_patch_is_made_to_what_was_seen(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        await post(service, id="c", metadata={"a": 1, "b": 2})
        path = "/v1/conferences/c"
        seen = (await service.application.get(path)).headers["etag"]
        first = await service.application.patch(
            path, json={"locked": True, "metadata": {"a": None}}, headers={"If-Match": seen}
        )
        assert first.status_code == 200
        assert (first.json()["locked"], first.json()["metadata"]) == (True, {"b": 2})
        second = await service.application.patch(path, json={"locked": False}, headers={"If-Match": seen})
        refused(second, 412, "precondition-failed")
        for tag in (first.headers["etag"], "*"):
            again = await service.application.patch(path, json={}, headers={"If-Match": tag})
            assert (again.status_code, again.headers["etag"]) == (200, first.headers["etag"])
        assert (await service.application.patch(path, json={"locked": False})).json()["locked"] is False
        gone = await service.application.patch("/v1/conferences/none", json={})
        refused(gone, 404, "conference-unknown")


async def test_two_who_saw_the_same_cannot_both_change_it(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        await post(service, id="c")
        seen = (await service.application.get("/v1/conferences/c")).headers["etag"]
        answers = await asyncio.gather(
            *(
                service.application.patch(
                    "/v1/conferences/c", json={"metadata": {"n": n}}, headers={"If-Match": seen}
                )
                for n in range(6)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, *[412] * 5]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"id": "a b"}, ["id"]),
        ({"metadata": []}, ["metadata"]),
        ({"metadata": {"": 1}}, ["metadata"]),
        ({"metadata": {"a": "x" * 5000}}, ["metadata", "4096"]),
        ({"metadata": {"a\x00b": 1}}, ["U+0000"]),
        ({"participant_limit": 0}, ["participant_limit"]),
        ({"participant_limit": "many"}, ["participant_limit"]),
        ({"empty_ttl": 0}, ["empty_ttl"]),
        ({"empty_ttl": 1e9}, ["empty_ttl"]),
        ({"locked": "yes"}, ["locked"]),
        ({"type": "a/b"}, ["type"]),
        ({"unheard": 1}, ["unheard"]),
    ],
)
async def test_bad_conferences_change_nothing(database_url: str, body: Any, words: list[str]) -> None:
    async with running(database_url, background=False) as service:
        refused(await service.application.post("/v1/conferences", json=body), 422, "invalid-request", *words)
        await post(service, id="c")
        before = await service.conference("c")
        if "id" not in body and "type" not in body:
            answer = await service.application.patch("/v1/conferences/c", json=body)
            refused(answer, 422, "invalid-request", *words)
        assert await service.conference("c") == before
        page = (await service.application.get("/v1/conferences")).json()
        assert [each["id"] for each in page["conferences"]] == ["c"]


async def test_odd_numbers_and_texts_in_metadata(database_url: str) -> None:
    async with running(database_url, background=False) as service:

        async def send(metadata: str) -> httpx2.Response:
            body = f'{{"id": "c", "metadata": {metadata}}}'
            return await service.application.post(
                "/v1/conferences", content=body, headers={"Content-Type": "application/json"}
            )

        for bad in ('{"a": 1e999}', '{"a": NaN}', '{"a": "\\ud800"}', '{"a": 1, "a"}'):
            assert (await send(bad)).status_code in {400, 422}
        taken = await send('{"big": 123456789012345678901234567890, "small": -1e-300, "t": "\\ud83d\\ude00"}')
        assert taken.status_code == 201, taken.text
        assert taken.json()["metadata"]["t"] == "\U0001f600"


async def test_the_list_in_pages(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for n in range(5):
            await post(service, id=f"c{n}", metadata={"odd": n % 2 == 1, "tenant": "a b&c"})
        list_ = "/v1/conferences"
        first = (await service.application.get(list_, params={"limit": 2})).json()
        assert [each["id"] for each in first["conferences"]] == ["c0", "c1"]
        params = {"limit": 4, "cursor": first["next"]}
        rest = (await service.application.get(list_, params=params)).json()
        assert [each["id"] for each in rest["conferences"]] == ["c2", "c3", "c4"]
        assert rest["next"] is None
        params = {"metadata.odd": "true", "metadata.tenant": "a b&c", "state": "active"}
        odd = (await service.application.get(list_, params=params)).json()
        assert [each["id"] for each in odd["conferences"]] == ["c1", "c3"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("cursor=nonsense", ["cursor"]),
        ("cursor=", ["cursor"]),
        ("limit=0", ["limit"]),
        ("limit=1001", ["limit"]),
        ("limit=x", ["limit"]),
        ("state=lost", ["state"]),
        ("type=a%20b", ["type"]),
        ("metadata=x", ["metadata"]),
        ("metadata.=x", ["metadata"]),
        ("metadata.a=%00", ["U+0000"]),
        ("metadata.a%00=x", ["U+0000"]),
        ("state.x=active", ["state.x"]),
        ("state=active&state=active", ["state"]),
        ("metadata.a=1&metadata.a=2", ["metadata.a"]),
        ("colour=blue", ["colour"]),
    ],
)
async def test_bad_queries(database_url: str, query: str, words: list[str]) -> None:
    async with running(database_url, background=False) as service:
        refused(await service.application.get(f"/v1/conferences?{query}"), 422, "invalid-request", *words)


# --- templates --------------------------------------------------------------------------------


async def test_templates_of_the_first_start_and_edits(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "templates.toml"
    file.write_text("[default]\n[lecture]\nparticipant_limit = 5\n", encoding="utf-8")
    async with running(database_url, background=False, templates_file=str(file), master_key=KEY) as service:
        listed = (await service.application.get("/v1/templates")).json()["templates"]
        assert [(each["name"], each["version"]) for each in listed] == [("default", 1), ("lecture", 1)]
        seen = await service.application.get("/v1/templates/lecture")
        body = seen.json()["template"] | {"participant_limit": 7}
        saved = await service.operator.put(
            "/v1/templates/lecture", json=body, headers={"If-Match": seen.headers["etag"]}
        )
        assert (saved.status_code, saved.json()["version"]) == (200, 2)
        late = await service.operator.put(
            "/v1/templates/lecture", json=body, headers={"If-Match": seen.headers["etag"]}
        )
        refused(late, 412, "precondition-failed")
        same = await service.operator.put("/v1/templates/lecture", json=body)
        assert (same.json()["version"], same.headers["etag"]) == (2, saved.headers["etag"])
        old = await service.application.get("/v1/templates/lecture?version=1")
        assert old.json()["template"]["participant_limit"] == 5
    async with running(database_url, background=False, templates_file=str(file), master_key=KEY) as service:
        kept = (await service.application.get("/v1/templates/lecture")).json()
        assert (kept["version"], kept["template"]["participant_limit"]) == (2, 7)


async def test_a_template_from_its_first_version_to_its_retirement(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        refused(await post(service, type="round-table"), 404, "template-unknown", "default", "webinar")
        made = await service.operator.put("/v1/templates/round-table", json={"participant_limit": 8})
        assert (made.status_code, made.json()["version"]) == (201, 1)
        only_new = await service.operator.put(
            "/v1/templates/other", json={}, headers={"If-Match": made.headers["etag"]}
        )
        refused(only_new, 412, "precondition-failed")
        assert (await post(service, id="c", type="round-table")).status_code == 201
        wrong = await service.operator.delete("/v1/templates/round-table", headers={"If-Match": '"x"'})
        refused(wrong, 412, "precondition-failed")
        assert (await service.operator.delete("/v1/templates/round-table")).status_code == 204
        refused(await post(service, type="round-table"), 404, "template-unknown", "retired")
        # What is there can be asked for again, and goes on.
        assert (await post(service, id="c", type="round-table")).status_code == 200
        shown = (await service.application.get("/v1/templates/round-table")).json()
        assert shown["conferences"] == 1
        assert shown["retired_at"] is not None
        names = [t["name"] for t in (await service.application.get("/v1/templates")).json()["templates"]]
        assert "round-table" not in names
        every = (await service.application.get("/v1/templates?retired=true")).json()["templates"]
        assert "round-table" in [each["name"] for each in every]
        back = await service.operator.put("/v1/templates/round-table", json={"participant_limit": 8})
        assert (back.status_code, back.json()["version"]) == (200, 2)


@pytest.mark.parametrize(
    ("method", "path", "body", "problem"),
    [
        ("DELETE", "/v1/templates/default", None, (409, "template-default")),
        ("DELETE", "/v1/templates/none", None, (404, "template-unknown")),
        ("GET", "/v1/templates/none", None, (404, "template-unknown")),
        ("GET", "/v1/templates/default?version=99", None, (404, "template-unknown")),
        ("GET", "/v1/templates/default?version=-1", None, (422, "invalid-request")),
        ("GET", "/v1/templates/a%20b", None, (422, "invalid-request")),
        ("PUT", "/v1/templates/a%20b", {}, (422, "invalid-request")),
        ("PUT", "/v1/templates/t", {"sfu_only": True, "views": [{}]}, (422, "invalid-request")),
        ("PUT", "/v1/templates/t", {"views": [{"label": "\x00"}]}, (422, "invalid-request")),
        ("PUT", "/v1/templates/t", {"selector": {"a": "\x00"}}, (422, "invalid-request")),
        ("PUT", "/v1/templates/t", [], (422, "invalid-request")),
    ],
)
async def test_bad_requests_for_templates(
    database_url: str, method: str, path: str, body: Any, problem: tuple[int, str]
) -> None:
    async with running(database_url, background=False) as service:
        before = (await service.operator.get("/v1/templates?retired=true")).json()
        refused(await service.operator.request(method, path, json=body), *problem)
        assert (await service.operator.get("/v1/templates?retired=true")).json() == before


async def test_only_operators_change_templates(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for client in (service.application, service.enrolment):
            refused(await client.put("/v1/templates/t", json={}), 403, "forbidden")
            refused(await client.delete("/v1/templates/default"), 403, "forbidden")


# --- what reaches the clusters ----------------------------------------------------------------


async def test_all_rooms_of_a_conference_have_one_version(database_url: str) -> None:
    async with (
        running(database_url) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        body = {"participant_limit": 8, "publication_limit": 3, "video_codecs": ["vp9"]}
        await service.operator.put("/v1/templates/round-table", json=body)
        assert (await post(service, id="c", type="round-table")).status_code == 201
        assert (await service.join("c", region="eu")).status_code == 200
        changed = {"participant_limit": 80, "sfu_only": True}
        await service.operator.put("/v1/templates/round-table", json=changed)
        await service.operator.delete("/v1/templates/round-table")
        assert (await service.join("c", region="us")).status_code == 200
        [first], [second] = eu.stub.made("create_room"), us.stub.made("create_room")
        assert first.body["options"] == second.body["options"]
        options = first.body["options"]
        assert (options["participantLimit"], options["inputLimit"]) == (8, 3)
        assert options["mediaIn"]["video"] == [{"codec": "vp9"}]
