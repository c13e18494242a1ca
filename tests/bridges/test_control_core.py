"""The agent's desired state: what is dialled, hung up, reported, refused. No socket, no clock."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest

from bridges.control.core import AgentCore
from bridges.control.orders import Dial, HangUp, Leave, Relay, Say
from causeway.api.agents import AgentAddress, AgentLoad
from causeway.backoff import Backoff
from causeway.channel import (
    Ack,
    Assignment,
    Delta,
    Desired,
    DesiredLink,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseRenewed,
    LinkState,
    Refusal,
    Refuse,
    Report,
    Resync,
    RoundTrip,
    Unknown,
    decode_from_agent,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.control.orders import Kind, Output
    from causeway.channel import FromAgent

PIN = "0" * 64
KINDS: tuple[Kind, ...] = ("event", "media")


def core(
    *, kinds: tuple[Kind, ...] = ("event", "media"), pinned: bool = True, max_links: int = 100
) -> AgentCore:
    return AgentCore(
        cluster="west",
        kinds=kinds,
        pinned=pinned,
        max_links=max_links,
        backoff=lambda: Backoff(base=1.0, cap=8.0, uniform=lambda _low, high: high),
    )


def address(port: int, fingerprint: str | None = PIN) -> AgentAddress:
    return AgentAddress(host="192.0.2.1", port=port, fingerprint=fingerprint)


def dialled(
    peer: str = "east",
    *,
    attempt: int = 0,
    token: str | None = "token",
    event: AgentAddress | None = address(1),  # noqa: B008 - frozen
    media: AgentAddress | None = address(2),  # noqa: B008 - frozen
) -> DesiredLink:
    return DesiredLink(peer=peer, role="dial", attempt=attempt, token=token, event=event, media=media)


def serving(conference: str, *links: DesiredLink) -> Assignment:
    return Assignment(conference=conference, links=list(links))


def said(outputs: Sequence[Output]) -> list[FromAgent]:
    return [output.message for output in outputs if isinstance(output, Say)]


def orders(outputs: Sequence[Output]) -> list[tuple[str, str, str, str]]:
    return [
        (type(output).__name__, output.kind, output.conference, output.peer)
        for output in outputs
        if isinstance(output, Dial | HangUp)
    ]


def started(*conferences: Assignment, agent: AgentCore | None = None, version: int = 1) -> AgentCore:
    agent = agent or core()
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    agent.receive(Desired(version=version, conferences=list(conferences)), 0.0)
    return agent


def both(agent: AgentCore, state: Literal["up", "down", "gone"], now: float, peer: str = "east") -> None:
    for kind in ("event", "media"):
        agent.leg_changed(kind, "c", peer, state, now=now)


def test_core_is_pure() -> None:
    code = (
        "import sys, bridges.control.core\n"
        "print(sorted({'asyncio', 'socket', 'websockets', 'aioquic'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ran.stdout == "[]\n"


def relays(outputs: Sequence[Output]) -> list[tuple[str, str, dict[str, tuple[str, ...]]]]:
    return [
        (output.kind, output.conference, dict(output.ways)) for output in outputs if isinstance(output, Relay)
    ]


def relaying(link: DesiredLink, *behind: str) -> DesiredLink:
    return msgspec.structs.replace(link, relays=True, behind=list(behind))


def test_bridges_are_told_which_links_pass_on_between_what_ends_and_what_begins() -> None:
    agent = started(serving("c", dialled("east"), dialled("north")))
    south = DesiredLink(peer="south", role="listen", relays=True, behind=["far"])
    shape = serving("c", relaying(dialled("east")), south, dialled("new", attempt=1))
    outputs = agent.receive(Desired(version=2, conferences=[shape]), 0.0)
    ways = {"east": (), "south": ("far",)}
    assert relays(outputs) == [("event", "c", ways), ("media", "c", ways)]
    kinds = [type(output).__name__ for output in outputs if not isinstance(output, Say)]
    assert kinds == ["HangUp", "HangUp", "Relay", "Relay", "Dial", "Dial"]


def test_what_passes_on_is_said_once_and_taken_back_with_the_conference() -> None:
    agent = started(serving("c", relaying(dialled(), "far")))
    again = agent.receive(Desired(version=2, conferences=[serving("c", relaying(dialled(), "far"))]), 0.0)
    assert relays(again) == []
    other = agent.receive(Desired(version=3, conferences=[serving("c", relaying(dialled()))]), 0.0)
    assert [ways for _, _, ways in relays(other)] == [{"east": ()}] * 2
    over = agent.receive(Delta(base=3, version=4, drop=["c"]), 0.0)
    assert relays(over) == [("event", "c", {}), ("media", "c", {})]
    assert relays(agent.receive(Desired(version=5, conferences=[]), 0.0)) == []


def test_first_word_is_hello_and_the_state_is_acted_on_acknowledged_and_reported() -> None:
    agent = core()
    assert agent.connected(epoch=7, ttl=10.0, now=0.0) == [Say(Hello(epoch=7, version=None))]
    outputs = agent.receive(Desired(version=3, conferences=[serving("c", dialled())]), 0.0)
    assert orders(outputs) == [("Dial", "event", "c", "east"), ("Dial", "media", "c", "east")]
    assert said(outputs) == [Ack(version=3), Report(links=[], full=True)]
    assert outputs[0] == Dial(
        kind="event", conference="c", peer="east", token="token", address=address(1), attempt=0
    )
    assert agent.version == 3
    assert agent.conferences == 1


def test_a_link_is_up_once_both_of_its_legs_are() -> None:
    agent = started(serving("c", dialled()))
    agent.leg_changed("event", "c", "east", "up", now=1.0)
    assert agent.next_timer() == 10.0, "nothing to say yet, only the lease waits for time"
    agent.leg_changed("media", "c", "east", "up", now=2.0)
    assert agent.next_timer() == 2.0
    assert said(agent.handle_timer(2.0)) == [
        Report(links=[LinkState(conference="c", peer="east", state="up")])
    ]
    assert agent.is_up("c", "east")
    assert agent.links_up == 1
    agent.leg_changed("media", "c", "east", "down", error="lost", now=3.0)
    agent.leg_changed("event", "c", "east", "down", error="gone quiet", now=3.0)
    assert said(agent.handle_timer(3.0)) == [
        Report(
            links=[
                LinkState(conference="c", peer="east", state="down", error="event: gone quiet; media: lost")
            ]
        )
    ], "one report of everything that changed in the same instant"


def test_a_flap_within_an_instant_is_not_reported() -> None:
    agent = started(serving("c", dialled()))
    both(agent, "up", 1.0)
    agent.handle_timer(1.0)
    agent.leg_changed("event", "c", "east", "down", now=2.0)
    agent.leg_changed("event", "c", "east", "up", now=2.0)
    assert agent.handle_timer(2.0) == []


def test_another_reason_waits_for_the_heartbeat() -> None:
    agent = started(serving("c", dialled()))
    agent.leg_changed("event", "c", "east", "down", error="one", now=1.0)
    assert len(agent.handle_timer(1.0)) == 1
    agent.leg_changed("event", "c", "east", "down", error="two", now=2.0)
    assert agent.next_timer() == 10.0
    beat = agent.heartbeat(AgentLoad(conferences=1), [RoundTrip(cluster="east", ms=12.5)])
    assert said(beat) == [
        Heartbeat(load=AgentLoad(conferences=1), round_trips=[RoundTrip(cluster="east", ms=12.5)]),
        Report(links=[LinkState(conference="c", peer="east", state="down", error="event: two")]),
    ]
    assert len(agent.heartbeat(AgentLoad(), [])) == 1


def test_an_error_is_cut_to_what_control_takes() -> None:
    agent = started(serving("c", dialled()))
    agent.leg_changed("event", "c", "east", "down", error="\x00\ud800" + "x" * 5000, now=1.0)
    (report,) = said(agent.handle_timer(1.0))
    assert isinstance(report, Report)
    assert len(report.links[0].error or "") == 500
    assert decode_from_agent(encode(report)) == report


def test_deltas_touch_only_what_they_name() -> None:
    agent = started(serving("a", dialled()), serving("b", dialled()))
    outputs = agent.receive(Delta(base=1, version=2, set=[serving("c", dialled("north"))], drop=["a"]), 1.0)
    assert orders(outputs) == [
        ("HangUp", "event", "a", "east"),
        ("HangUp", "media", "a", "east"),
        ("Dial", "event", "c", "north"),
        ("Dial", "media", "c", "north"),
    ]
    assert said(outputs) == [Ack(version=2)]
    outputs = agent.receive(Delta(base=2, version=3, set=[serving("c", dialled("south"))]), 1.0)
    assert orders(outputs) == [
        ("HangUp", "event", "c", "north"),
        ("HangUp", "media", "c", "north"),
        ("Dial", "event", "c", "south"),
        ("Dial", "media", "c", "south"),
    ]


def test_the_same_state_again_asks_nothing_of_the_bridges() -> None:
    agent = started(serving("c", dialled()))
    again = agent.receive(Desired(version=1, conferences=[serving("c", dialled())]), 1.0)
    assert orders(again) == []
    assert said(again) == [Ack(version=1), Report(links=[], full=True)]


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (dialled(attempt=1), ["event", "media"]),
        (dialled(token="another"), ["event", "media"]),
        (dialled(event=address(9)), ["event"]),
        (dialled(media=address(2, "1" * 64)), ["media"]),
    ],
)
def test_a_new_attempt_token_or_address_is_dialled(change: DesiredLink, kinds: list[str]) -> None:
    agent = started(serving("c", dialled()))
    outputs = agent.receive(Delta(base=1, version=2, set=[serving("c", change)]), 1.0)
    assert orders(outputs) == [("Dial", kind, "c", "east") for kind in kinds]


def test_an_address_that_goes_ends_its_leg_alone() -> None:
    agent = started(serving("c", dialled()))
    agent.leg_changed("event", "c", "east", "up", now=1.0)
    outputs = agent.receive(Delta(base=1, version=2, set=[serving("c", dialled(media=None))]), 1.0)
    assert orders(outputs) == [("HangUp", "media", "c", "east")]
    assert agent.is_up("c", "east")


def test_one_kind_dials_its_own_address_only() -> None:
    agent = core(kinds=("media",))
    started(serving("c", dialled()), agent=agent)
    agent.leg_changed("media", "c", "east", "up", now=1.0)
    assert agent.is_up("c", "east")


def test_without_control_nothing_changes_and_its_return_finds_the_same_version() -> None:
    agent = started(serving("c", dialled()), version=5)
    both(agent, "up", 1.0)
    agent.handle_timer(1.0)
    agent.disconnected()
    assert agent.next_timer() is None
    assert agent.heartbeat(AgentLoad(), []) == []
    agent.leg_changed("event", "c", "east", "down", error="away", now=1e6)
    assert agent.next_timer() is None, "there is nobody to tell"
    agent.leg_changed("event", "c", "east", "gone", now=1e6)
    assert agent.next_timer() == 1e6 + 1.0
    assert orders(agent.handle_timer(1e6 + 1.0)) == [("Dial", "event", "c", "east")]
    assert agent.connected(epoch=8, ttl=10.0, now=2e6) == [Say(Hello(epoch=8, version=5))]
    outputs = agent.receive(Desired(version=5, conferences=[serving("c", dialled())]), 2e6)
    assert orders(outputs) == []
    assert said(outputs) == [
        Ack(version=5),
        Report(links=[LinkState(conference="c", peer="east", state="down")], full=True),
    ]


def test_a_connection_may_begin_with_a_delta() -> None:
    agent = started(serving("c", dialled()))
    agent.disconnected()
    agent.connected(epoch=2, ttl=10.0, now=5.0)
    outputs = agent.receive(Delta(base=1, version=2, drop=["c"]), 5.0)
    assert said(outputs) == [Ack(version=2), Report(links=[], full=True)]


def test_a_database_that_was_set_back_is_believed_on_a_new_connection() -> None:
    agent = started(serving("c", dialled()), version=50)
    agent.disconnected()
    agent.connected(epoch=2, ttl=10.0, now=5.0)
    agent.receive(Desired(version=4, conferences=[]), 5.0)
    assert agent.version == 4
    assert agent.conferences == 0


def test_what_comes_twice_or_late_is_passed_over() -> None:
    agent = started(serving("c", dialled()), version=5)
    delta = Delta(base=5, version=6, drop=["c"])
    assert said(agent.receive(delta, 1.0)) == [Ack(version=6)]
    assert agent.receive(delta, 1.0) == []
    assert agent.receive(Desired(version=3, conferences=[serving("c", dialled())]), 1.0) == []
    assert (agent.version, agent.stale) == (6, 2)


def test_a_delta_with_a_gap_is_answered_by_one_resync() -> None:
    agent = started(serving("c", dialled()), version=5)
    assert agent.receive(Delta(base=7, version=8, drop=["c"]), 1.0) == [Say(Resync())]
    assert agent.receive(Delta(base=8, version=9), 1.0) == []
    assert agent.version == 5
    assert said(agent.receive(Desired(version=9, conferences=[]), 1.0))[0] == Ack(version=9)
    assert agent.receive(Delta(base=11, version=12), 1.0) == [Say(Resync())]


def test_a_delta_before_any_state_is_answered_by_resync() -> None:
    agent = core()
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    assert agent.receive(Delta(base=0, version=1), 0.0) == [Say(Resync())]


@pytest.mark.parametrize(
    ("link", "word"),
    [
        (dialled(token=None), "token"),
        (dialled(event=None, media=None), "no address"),
        (dialled(event=address(1, None)), "fingerprint"),
        (dialled("west"), "itself"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_rest_is_done(link: DesiredLink, word: str) -> None:
    agent = core()
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    outputs = agent.receive(Desired(version=1, conferences=[serving("c", link, dialled("north"))]), 0.0)
    assert orders(outputs) == [("Dial", "event", "c", "north"), ("Dial", "media", "c", "north")]
    refuse = said(outputs)[0]
    assert isinstance(refuse, Refuse)
    assert refuse.version == 1
    assert [(each.conference, each.peer) for each in refuse.problems] == [("c", link.peer)]
    assert word in refuse.problems[0].reason
    mended = agent.receive(Delta(base=1, version=2, set=[serving("c", dialled(), dialled("north"))]), 1.0)
    assert orders(mended) == [("Dial", "event", "c", "east"), ("Dial", "media", "c", "east")]
    assert said(mended) == [Ack(version=2)]


def test_unpinned_is_dialled_where_that_is_allowed() -> None:
    agent = core(pinned=False)
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    link = dialled(event=address(1, None))
    assert len(orders(agent.receive(Desired(version=1, conferences=[serving("c", link)]), 0.0))) == 2


def test_links_beyond_the_limit_wait_for_room() -> None:
    agent = core(max_links=1)
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    outputs = agent.receive(
        Desired(version=1, conferences=[serving("a", dialled()), serving("b", dialled())]), 0.0
    )
    assert {conference for _, _, conference, _ in orders(outputs)} == {"a"}
    assert said(outputs)[0] == Refuse(
        version=1, problems=[Refusal(conference="b", peer="east", reason="too many links")]
    )
    outputs = agent.receive(Delta(base=1, version=2, drop=["a"]), 1.0)
    assert [order[:3] for order in orders(outputs)] == [
        ("HangUp", "event", "a"),
        ("HangUp", "media", "a"),
        ("Dial", "event", "b"),
        ("Dial", "media", "b"),
    ]
    assert said(outputs) == [Ack(version=2)]


def test_a_leg_that_its_bridge_has_given_up_is_dialled_again_after_growing_pauses() -> None:
    agent = started(serving("c", dialled(media=None)))
    now = 0.5
    for pause in (1.0, 2.0, 4.0, 8.0, 8.0):
        agent.receive(LeaseRenewed(ttl=1000.0), now)
        agent.leg_changed("event", "c", "east", "gone", error="the room is gone", now=now)
        agent.leg_changed("event", "c", "east", "gone", error="the room is gone", now=now)
        agent.handle_timer(now)
        assert agent.next_timer() == now + pause
        now += pause
        assert orders(agent.handle_timer(now)) == [("Dial", "event", "c", "east")]
    agent.leg_changed("event", "c", "east", "up", now=now)
    agent.handle_timer(now)
    agent.leg_changed("event", "c", "east", "gone", now=now)
    agent.handle_timer(now)
    assert agent.next_timer() == now + 1.0, "being up forgives"


def test_a_new_attempt_does_not_wait_for_the_pause() -> None:
    agent = started(serving("c", dialled(media=None)))
    agent.leg_changed("event", "c", "east", "gone", now=0.0)
    agent.handle_timer(0.0)
    link = dialled(media=None, attempt=1)
    assert orders(agent.receive(Delta(base=1, version=2, set=[serving("c", link)]), 0.1)) != []
    assert agent.next_timer() == 10.0


def test_a_link_that_is_up_and_ordered_anew_is_said_to_be_up_anew() -> None:
    agent = started(serving("c", dialled(media=None)))
    agent.leg_changed("event", "c", "east", "up", now=0.0)
    up = Report(links=[LinkState(conference="c", peer="east", state="up")])
    assert said(agent.handle_timer(0.0)) == [up]
    link = dialled(media=None, attempt=1)
    assert orders(agent.receive(Delta(base=1, version=2, set=[serving("c", link)]), 0.1)) != []
    assert said(agent.handle_timer(0.1)) == [up]


def test_a_bridge_that_does_not_take_an_order_is_asked_again_and_the_reason_reported() -> None:
    agent = core()
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    link = dialled(media=None)
    outputs = agent.receive(Desired(version=1, conferences=[serving("c", link)]), 0.0)
    dial = outputs[0]
    assert isinstance(dial, Dial)
    agent.refused(dial, "not running", 0.0)
    assert said(agent.handle_timer(0.0)) == [
        Report(links=[LinkState(conference="c", peer="east", state="down", error="event: not running")])
    ]
    assert agent.handle_timer(1.0) == [dial]
    agent.receive(Delta(base=1, version=2, drop=["c"]), 2.0)
    agent.refused(dial, "not running", 2.0)
    assert agent.next_timer() == 10.0, "an order that was taken back is of no interest"


def test_a_link_that_the_peer_dials_is_reported_by_its_events() -> None:
    agent = core()
    agent.leg_changed("event", "c", "north", "up", now=0.0)  # it came before control's word
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    listening = serving("c", DesiredLink(peer="north", role="listen"))
    outputs = agent.receive(Desired(version=1, conferences=[listening]), 0.0)
    assert orders(outputs) == []
    up = LinkState(conference="c", peer="north", state="up")
    assert said(outputs)[1] == Report(links=[up], full=True)
    agent.leg_changed("event", "c", "north", "down", error="lost", now=1.0)
    assert len(agent.handle_timer(1.0)) == 1


def test_a_role_that_turns_round_hangs_up() -> None:
    agent = started(serving("c", dialled()))
    listening = serving("c", DesiredLink(peer="east", role="listen"))
    assert orders(agent.receive(Delta(base=1, version=2, set=[listening]), 1.0)) == [
        ("HangUp", "event", "c", "east"),
        ("HangUp", "media", "c", "east"),
    ]


def test_what_a_dropped_link_still_says_is_of_no_interest() -> None:
    agent = started(serving("c", dialled()))
    both(agent, "up", 1.0)
    agent.handle_timer(1.0)
    agent.receive(Delta(base=1, version=2, drop=["c"]), 2.0)
    both(agent, "gone", 2.0)
    both(agent, "down", 2.0)
    assert agent.next_timer() == 10.0
    outputs = agent.receive(Delta(base=2, version=3, set=[serving("c", dialled())]), 3.0)
    assert len(orders(outputs)) == 2
    assert not agent.is_up("c", "east"), "its new life begins with nothing known"


def test_goodbye_and_a_lease_that_is_not_renewed_end_the_connection() -> None:
    agent = started()
    assert agent.receive(Goodbye(reason="restarting", retry_after=1.5), 1.0) == [
        Leave(reason="restarting", retry_after=1.5)
    ]
    agent.receive(LeaseRenewed(ttl=10.0), 8.0)
    assert agent.next_timer() == 18.0
    assert agent.handle_timer(17.0) == []
    assert [type(output) for output in agent.handle_timer(18.0)] == [Leave]
    assert agent.next_timer() is None


def test_unknown_messages_are_counted() -> None:
    agent = started()
    assert agent.receive(Unknown("praise"), 1.0) == []
    assert agent.unknown == 1


def test_the_token_does_not_show() -> None:
    (dial, *_) = started_outputs()
    assert "token" not in repr(dial)


def started_outputs() -> list[Output]:
    agent = core()
    agent.connected(epoch=1, ttl=10.0, now=0.0)
    return agent.receive(Desired(version=1, conferences=[serving("c", dialled())]), 0.0)
