"""Two real Janus servers in two regions, one conference: who publishes at one is seen at the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.control.service import until
from tests.edge.janus_person import JanusPerson
from tests.edge.janus_server import janus_server
from tests.edge.janus_world import World, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.edge.janus_server import JanusServer

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[JanusServer, JanusServer]]:
    with janus_server() as eu, janus_server(string_ids=True) as us:
        yield eu, us


async def watched(person: JanusPerson, user: str, *, pictures: int = 10) -> int:
    """Watch somebody until pictures and sound are decoded; returns who they are at the server."""
    await person.until(lambda: person.named(user) is not None)
    feed: int = person.named(user)  # type: ignore[assignment] # just now it was there
    await person.watch(feed)
    await more(person, feed, pictures)
    return feed


async def more(person: JanusPerson, feed: int, pictures: int = 10) -> None:
    seen, heard = len(person.numbers.get(feed, ())), person.sounds.get(feed, 0)
    await person.until(
        lambda: (
            len(person.numbers.get(feed, ())) > seen + pictures and person.sounds.get(feed, 0) > heard + 20
        )
    )


async def participants(there: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await there.service.conference("standup"))["participants"]
    return found


async def test_a_publisher_at_one_server_is_decoded_at_the_other(
    servers: tuple[JanusServer, JanusServer], database_url: str
) -> None:
    async with world(database_url, eu=servers[0], us=servers[1]) as there:
        ada_place, bob_place = await there.join("eu", "ada"), await there.join("us", "bob")
        async with JanusPerson(bob_place["token"], "Bob at home") as bob:
            async with JanusPerson(ada_place["token"], "whoever") as ada:
                await ada.publish()
                feed = await watched(bob, "ada")
                numbers = bob.numbers[feed]
                assert numbers == sorted(numbers)
                known = await until(lambda: participants(there), lambda seen: len(seen) == 2)
                # Not what they call themselves at the server: who the token was made for.
                assert {one["user"] for one in known} == {"ada", "bob"}

                await _connected_anew(there)
                await more(bob, feed)
                assert bob.named("ada") == feed
                await ada.leave()
                await bob.until(lambda: bob.named("ada") is None)
            await until(lambda: participants(there), lambda seen: len(seen) == 1)

        deleted = await there.service.application.delete("/v1/conferences/standup")
        assert deleted.status_code in {202, 204}
        for region in ("eu", "us"):
            await until(_rooms(there, region), lambda rooms: rooms == [])


async def test_servers_that_were_killed_are_filled_again(
    servers: tuple[JanusServer, JanusServer], database_url: str
) -> None:
    eu, us = servers
    async with world(database_url, eu=eu, us=us) as there:
        ada_place, bob_place = await there.join("eu", "ada"), await there.join("us", "bob")
        async with JanusPerson(ada_place["token"], "Ada") as ada:
            await ada.publish()
            async with JanusPerson(bob_place["token"], "Bob") as bob:
                await watched(bob, "ada", pictures=3)
                assert forwarded(there, "eu") == 1
            await until(_forwarded(there, "eu"), lambda count: count == 0)  # nobody wants it any more
            await us.restart()
            async with JanusPerson((await rejoined(there, "us", "bob"))["token"], "Bob") as bob:
                await watched(bob, "ada", pictures=3)
                eu.kill()
                await bob.until(lambda: bob.named("ada") is None)
                eu.start()
                async with JanusPerson((await rejoined(there, "eu", "ada"))["token"], "Ada") as ada_again:
                    await ada_again.publish()
                    await watched(bob, "ada", pictures=3)


async def rejoined(there: World, region: str, user: str) -> dict[str, Any]:
    """Ask for a place until there is one again, where the server was killed."""

    async def join() -> Any:
        answer = await there.service.join("standup", user=user, region=region)
        return answer.json() if answer.status_code == 200 and answer.json()["region"] == region else None

    found: dict[str, Any] = await until(join, bool)
    return found


def forwarded(there: World, region: str) -> int:
    """Return how many publishers the region's server sends to its connector."""
    return len(there.connectors[region]._rooms["standup"]._done.forwarded)


def _forwarded(there: World, region: str) -> Any:
    async def count() -> int:
        return forwarded(there, region)

    return count


async def _connected_anew(there: World) -> None:
    """Break the connections to both servers, and wait until there are others."""
    former = {connector: connector.client for connector in there.connectors.values()}
    for client in former.values():
        assert client is not None
        client.lose("for a test")

    async def anew() -> bool:
        return all(connector.client not in {None, client} for connector, client in former.items())

    await until(anew, bool)


def _rooms(there: World, region: str) -> Any:
    async def listed() -> Any:
        return await there.rooms_of(region)

    return listed
