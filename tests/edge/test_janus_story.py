"""Two real Janus servers in two regions, one conference: who publishes at one is seen at the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.edge.janus_person import JanusPerson
from tests.edge.janus_server import janus_server
from tests.edge.janus_world import world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.edge.janus_server import JanusServer

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[JanusServer, JanusServer]]:
    with janus_server() as eu, janus_server() as us:
        yield eu, us


async def test_a_publisher_at_one_server_is_decoded_at_the_other(
    servers: tuple[JanusServer, JanusServer], database_url: str
) -> None:
    async with world(database_url, eu=servers[0], us=servers[1]) as there:
        ada_place, bob_place = await there.join("eu", "ada"), await there.join("us", "bob")
        async with JanusPerson(bob_place["token"], "Bob") as bob:
            async with JanusPerson(ada_place["token"], "Ada") as ada:
                await ada.publish()
                await bob.until(lambda: bob.named("ada") is not None)
                feed = bob.named("ada")
                assert feed is not None
                await bob.watch(feed)
                await bob.until(lambda: len(bob.numbers.get(feed, ())) > 10 and bob.sounds.get(feed, 0) > 20)
                numbers = bob.numbers[feed]
                assert numbers == sorted(numbers)
            await bob.until(lambda: bob.named("ada") is None)
