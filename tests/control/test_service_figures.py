"""What agents measure, from their channel to whoever asks the API; against a real service and database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from websockets import ConnectionClosed

from causeway.api.figures import BridgeFigures, LinkFigures, OriginFigures, PeerFigures
from causeway.channel import Figures, Heartbeat, LeaseRenewed, encode
from control.registry.tables import link_figures
from tests.control.service import until
from tests.control.test_agents_cascade import World, meet, told, up, world

if TYPE_CHECKING:
    from tests.control.agents import Channel

ORIGIN = OriginFigures(origin="eu-1", incarnation="1a", seq=9, told=9, hops=1)
LINK = LinkFigures(
    kind="event",
    conference="standup",
    peer="eu-1",
    state="up",
    wire="causeway/1",
    messages_in=9,
    bytes_in=900,
    reconnects=2,
    round_trip_ms=81.5,
    origins=[ORIGIN],
)
PEER = PeerFigures(kind="event", peer="eu-1", wires=["causeway/1"], connections=1, links=1, bytes_in=4000)


def figures(*links: LinkFigures, **fields: Any) -> Figures:
    return Figures(bridges=[BridgeFigures(kind="event", port=7700, links=list(links), **fields)])


async def plan(here: World) -> dict[str, Any]:
    answer = await here.service.operator.get("/v1/conferences/standup/plan")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def settled(channel: Channel) -> None:
    """Wait until control has taken what the agent said before."""
    await channel.say(Heartbeat())
    await channel.hear(LeaseRenewed)


async def test_what_an_agent_measures_is_shown_with_it_and_in_the_plan(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1", port=7100).connected() as eu,
        here.agent("us-a", "us-1", port=7200).connected() as us,
    ):
        assert (await here.shown("us-a"))["figures"] is None
        await meet(here)
        await us.until(told(1))
        await us.say(up())
        await here.link("up")

        elsewhere = LinkFigures(kind="event", conference="of-somebody-else", peer="eu-1")
        media = LinkFigures(kind="media", conference="standup", peer="eu-1", tracks_in=2)
        await us.say(figures(LINK, elsewhere, media, peers=[PEER], counters={"framing": 3}))
        await settled(us)
        shown = (await here.shown("us-a"))["figures"]
        assert shown["told_at"]
        (bridge,) = shown["bridges"]
        assert bridge == {
            "kind": "event",
            "port": 7700,
            "peers": [
                {
                    "kind": "event",
                    "peer": "eu-1",
                    "wires": ["causeway/1"],
                    "connections": 1,
                    "links": 1,
                    "bytes_in": 4000,
                }
            ],
            "counters": {"framing": 3},
        }
        listed = (await here.service.operator.get("/v1/agents")).json()["agents"]
        assert [each["figures"] for each in listed] == [None, None]

        (link,) = (await plan(here))["links"]
        assert [(end["cluster"], end["agent"], end["figures"]["kind"]) for end in link["ends"]] == [
            ("us-1", "us-a", "event"),
            ("us-1", "us-a", "media"),
        ]
        assert link["ends"][0]["figures"] == {
            "kind": "event",
            "conference": "standup",
            "peer": "eu-1",
            "state": "up",
            "wire": "causeway/1",
            "messages_in": 9,
            "bytes_in": 900,
            "reconnects": 2,
            "round_trip_ms": 81.5,
            "origins": [{"origin": "eu-1", "incarnation": "1a", "seq": 9, "told": 9, "hops": 1}],
        }
        async with here.service.engine.connect() as connection:
            kept = (await connection.execute(select(link_figures.c.conference))).scalars().all()
        assert set(kept) == {"standup"}

        # The other end's, and newer ones of this end, take their places.
        await eu.say(figures(LinkFigures(kind="event", conference="standup", peer="us-1", drops=1)))
        await us.say(figures(LinkFigures(kind="event", conference="standup", peer="eu-1", messages_in=10)))
        await settled(eu)
        await settled(us)
        (link,) = (await plan(here))["links"]
        seen = [(end["cluster"], end["figures"].get("messages_in")) for end in link["ends"]]
        assert seen == [("eu-1", None), ("us-1", 10), ("us-1", None)]


async def test_figures_go_with_the_placement(database_url: str) -> None:
    async with world(database_url) as here, here.agent("us-a", "us-1").connected() as us:
        await meet(here)
        await us.say(figures(LINK))
        await settled(us)

        async def kept() -> int:
            async with here.service.engine.connect() as connection:
                return len((await connection.execute(select(link_figures))).all())

        assert await kept() == 1
        await here.service.operator.delete("/v1/conferences/standup")
        await until(kept, lambda count: count == 0)


async def test_who_is_believed_and_what_is_understood(database_url: str) -> None:
    async with world(database_url) as here:
        us = here.agent("us-a", "us-1")
        async with us.connected() as old, us.connected() as new:
            await settled(new)
            # A channel that is over is not believed, whether these still reach control or meet its closing.
            with suppress(ConnectionClosed):
                await old.say(figures(LINK, counters={"framing": 1}))
            await old.end()
            assert (await here.shown("us-a"))["figures"] is None
            # Words of a later release are taken, and many links at once, of which one is told twice.
            await new.say_text(
                encode(figures(LINK)).replace('"kind":"event"', '"kind":"hologram","depth":{}')
            )
            crowd = [LinkFigures(kind="event", conference=f"c{n}", peer="eu-1") for n in range(5000)]
            await new.say(figures(LINK, LINK, *crowd))
            await settled(new)
            (bridge,) = (await here.shown("us-a"))["figures"]["bridges"]
            assert bridge["kind"] == "event"
            # A wrong message ends the channel and is not kept.
            await new.say_text('{"type":"figures","bridges":[{"kind":"wrong","port":-1}]}')
            goodbye = await new.end()
            assert goodbye is not None
            assert goodbye.reason == "protocol"
        (bridge,) = (await here.shown("us-a"))["figures"]["bridges"]
        assert bridge["kind"] == "event"
