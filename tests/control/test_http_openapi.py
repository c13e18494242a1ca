from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from control.http.entry import PARTS
from control.http.openapi import problems_of
from control.http.problems import PROBLEMS
from tests.control.service import Service, running

ERRORS = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


async def document_of(service: Service) -> dict[str, Any]:
    answer = await service.nobody.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["etag"].startswith('"')
    document: dict[str, Any] = answer.json()
    return document


async def test_every_route_is_in_the_document_and_nothing_else(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        document = await document_of(service)
        entries = service.control.entries
        listed = {(path, method) for path, methods in document["paths"].items() for method in methods}
        assert listed == {(entry.path, entry.method.lower()) for entry in entries}
        assert len(listed) == len(entries), "two rows for one route"
        names = [op["operationId"] for methods in document["paths"].values() for op in methods.values()]
        assert len(set(names)) == len(names)


async def test_every_row_of_the_table_says_what_it_must(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for entry in service.control.entries:
            assert entry.summary.endswith("."), entry
            assert entry.tag, entry
            assert entry.answers, entry
            assert (entry.scope is not None) == ("application" in (entry.kinds or ())), entry
            assert set(re.findall(r"\{(\w+)\}", entry.path)) <= PARTS.keys(), entry
            for name in problems_of(entry):
                assert name in PROBLEMS, (entry.path, name)
                assert f"| `{name}` | {PROBLEMS[name].status} |" in ERRORS, name


async def test_every_reference_of_the_document_leads_somewhere(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        document = await document_of(service)

        def references(value: Any) -> list[str]:
            if isinstance(value, dict):
                own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
                return own + [each for inner in value.values() for each in references(inner)]
            return [each for inner in value for each in references(inner)] if isinstance(value, list) else []

        found = references(document)
        assert found
        for reference in found:
            place: Any = document
            for name in reference.removeprefix("#/").split("/"):
                place = place[name]
        assert document["openapi"].startswith("3.1")


async def test_statuses_hold_the_problems_of_that_status(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        document = await document_of(service)
        register = document["paths"]["/v1/keys"]["post"]
        assert register["security"] == [{"key": []}]
        limited = register["responses"]["429"]
        assert limited["content"]["application/problem+json"]["schema"]["properties"]["type"]["enum"] == [
            "rate-limited"
        ]
        assert "Retry-After" in limited["headers"]
        assert document["paths"]["/healthz"]["get"]["security"] == []


@pytest.mark.parametrize(
    ("path", "media"),
    [("/docs", "text/html"), ("/docs/page.js", "text/javascript"), ("/docs/page.css", "text/css")],
)
async def test_the_page_loads_nothing_but_its_own_files(database_url: str, path: str, media: str) -> None:
    async with running(database_url, background=False) as service:
        answer = await service.nobody.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(media)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"https?://", answer.text)
        for inline in ("innerHTML", "<script>", "<style", "onclick", "localStorage", "eval("):
            assert inline not in answer.text
