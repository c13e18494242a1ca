"""What an application asks of control: conferences, and where its users shall go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from causeway.api import (
    ConferenceCreate,
    ConferenceList,
    ConferenceQuery,
    ConferenceView,
    DecisionList,
    ExplainQuery,
    JoinAnswer,
    PlanView,
    RegionList,
    TemplateList,
    TemplateView,
)
from causeway.client.connection import Connection, Tagged, headers_of, path_of, query_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from causeway.api import (
        ConferencePatch,
        ConferenceSummary,
        DecisionView,
        JoinByIdRequest,
        JoinRequest,
        RegionView,
    )

__all__ = ["ConferenceCalls"]


class ConferenceCalls(Connection):
    """Calls for application keys."""

    async def create_conference(self, conference: str | ConferenceCreate | None = None) -> ConferenceView:
        """Create a conference, by its id alone or in full; without an id control draws one."""
        wish = conference if isinstance(conference, ConferenceCreate) else ConferenceCreate(id=conference)
        return await self._ask("POST", "conferences", ConferenceView, body=wish)

    async def get_conference(self, conference: str) -> ConferenceView:
        """Return a conference with its placements, links and participants."""
        return await self._ask("GET", path_of("conferences", conference), ConferenceView)

    async def list_conferences(self, query: ConferenceQuery | None = None) -> ConferenceList:
        """Return a page of the conferences that the query describes, oldest first."""
        return await self._ask("GET", f"conferences{query_of(query)}", ConferenceList)

    async def each_conference(self, query: ConferenceQuery | None = None) -> AsyncIterator[ConferenceSummary]:
        """Go through all of these conferences, page by page."""
        query = query or ConferenceQuery()
        while True:
            page = await self.list_conferences(query)
            for conference in page.conferences:
                yield conference
            if page.next is None:
                return
            query = structs.replace(query, cursor=page.next)

    async def update_conference(
        self, conference: str, patch: ConferencePatch, *, if_match: str | None = None
    ) -> ConferenceView:
        """Change a conference; what the patch leaves out stays as it is."""
        headers = headers_of(if_match=if_match)
        path = path_of("conferences", conference)
        return await self._ask("PATCH", path, ConferenceView, body=patch, headers=headers)

    async def delete_conference(self, conference: str) -> None:
        """End a conference: its rooms are removed, everybody is out."""
        await self._call("DELETE", path_of("conferences", conference))

    async def join(
        self,
        conference: str,
        request: JoinRequest,
        *,
        explain: bool = False,
        idempotency_key: str | None = None,
    ) -> JoinAnswer:
        """Return where the user shall connect, and the token to show there, once."""
        path = path_of("conferences", conference, "join") + query_of(ExplainQuery(explain=explain))
        headers = headers_of(idempotency_key=idempotency_key)
        return await self._ask("POST", path, JoinAnswer, body=request, headers=headers)

    async def join_by_id(
        self, request: JoinByIdRequest, *, explain: bool = False, idempotency_key: str | None = None
    ) -> JoinAnswer:
        """Join a conference that is created if there is none."""
        path = "join" + query_of(ExplainQuery(explain=explain))
        headers = headers_of(idempotency_key=idempotency_key)
        return await self._ask("POST", path, JoinAnswer, body=request, headers=headers)

    async def list_decisions(self, conference: str) -> list[DecisionView]:
        """Return why the conference's newest joins went where they went, newest first."""
        path = path_of("conferences", conference, "decisions")
        return (await self._ask("GET", path, DecisionList)).decisions

    async def get_plan(self, conference: str) -> PlanView:
        """Return what is about to be done about a conference, and what waits for what."""
        return await self._ask("GET", path_of("conferences", conference, "plan"), PlanView)

    async def list_regions(self) -> list[RegionView]:
        """Return the regions, with the URLs to measure the latency to them."""
        return (await self._ask("GET", "regions", RegionList)).regions

    async def list_templates(self) -> list[TemplateView]:
        """Return the newest version of each template that takes new conferences, by name."""
        return (await self._ask("GET", "templates", TemplateList)).templates

    async def get_template(self, template: str) -> Tagged[TemplateView]:
        """Return the newest version of a template."""
        return await self._ask_tagged("GET", path_of("templates", template), TemplateView)
