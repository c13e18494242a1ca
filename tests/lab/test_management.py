from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import msgspec
import pytest

from causeway.errors import UnavailableError
from lab.mauth import MAuth
from lab.portal_client import Address, TrackOffer
from lab.settings import RestSettings
from lab.tokens import Admission, TokenError, Tokens
from tests.lab.cluster_kit import authorization, bridge, lab_cluster, member, rest, stats

ROOM = {"name": "room", "options": {"_id": "room"}}


# --- signatures and tokens, without a server -------------------------------------------------------


def test_a_good_signature_passes_with_and_without_a_user() -> None:
    mauth = MAuth("service", "key of the service")
    assert mauth.accepts(authorization())
    assert mauth.accepts(authorization(username="u", role="r"))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "MAuth",
        "MAuth ",
        "Bearer x",
        authorization(key="another"),
        authorization(service="another"),
        authorization(timestamp="yesterday"),
        authorization(timestamp="١٢٣"),
        authorization().replace("HMAC_SHA256", "NONE"),
        authorization().replace("mauth_cnonce=00ff", "mauth_cnonce=00fe"),
        authorization() + ",mauth_username=u,mauth_role=r",
        authorization() + ",mauth_serviceid=service",
        authorization() + ",",
        "MAuth " + "x" * 5000,
        authorization().replace("mauth_signature=", "mauth_signature=é"),
    ],
)
def test_anything_else_does_not(header: str) -> None:
    assert not MAuth("service", "key of the service").accepts(header)


def test_an_older_timestamp_is_refused_only_when_asked_for() -> None:
    now, before = authorization(timestamp="2000"), authorization(timestamp="1999")
    strict = MAuth("service", "key of the service", timestamp_check=True)
    assert strict.accepts(now)
    assert strict.accepts(now)
    assert not strict.accepts(before)
    relaxed = MAuth("service", "key of the service")
    assert relaxed.accepts(now)
    assert relaxed.accepts(before)


def test_a_token_is_owts_and_good_once_and_for_a_while() -> None:
    now = 0.0
    tokens = Tokens(ttl=10, limit=100, clock=lambda: now)
    admission = Admission(room="r", user="u", role="presenter")
    text = tokens.make(admission, host="h:1")
    shown = msgspec.json.decode(b64decode(text))
    assert shown.keys() == {"tokenId", "host", "secure", "webTransportUrl", "signature"}
    assert (shown["host"], shown["secure"]) == ("h:1", False)
    assert tokens.redeem(text) == admission
    with pytest.raises(TokenError):
        tokens.redeem(text)
    late = tokens.make(admission, host="h:1")
    now = 10.0
    with pytest.raises(TokenError):
        tokens.redeem(late)


@pytest.mark.parametrize("field", ["tokenId", "host", "secure", "signature"])
def test_a_changed_token_is_refused_and_the_true_one_stays_good(field: str) -> None:
    tokens = Tokens(ttl=10, limit=100, clock=lambda: 0.0)
    text = tokens.make(Admission(room="r", user="u", role="presenter"), host="h:1")
    shown = msgspec.json.decode(b64decode(text))
    shown[field] = True if field == "secure" else shown[field][:-1] + "#"
    changed = b64encode(msgspec.json.encode(shown)).decode()
    with pytest.raises(TokenError):
        tokens.redeem(changed)
    assert tokens.redeem(text).room == "r"


@pytest.mark.parametrize("text", ["", "é", "====", "e30=", "W10=", "x" * 100_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        Tokens(ttl=10, limit=100, clock=lambda: 0.0).redeem(text)


def test_pending_tokens_are_limited_oldest_first() -> None:
    tokens = Tokens(ttl=10, limit=2, clock=lambda: 0.0)
    made = [tokens.make(Admission(room=str(n), user="u", role="r"), host="h") for n in range(3)]
    assert len(tokens) == 2
    with pytest.raises(TokenError):
        tokens.redeem(made[0])
    assert tokens.redeem(made[2]).room == "2"


# --- the API --------------------------------------------------------------------------------------


async def test_unsigned_requests_are_refused_whatever_they_ask() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        for header in ("", authorization(key="wrong"), "Bearer x"):
            for method, path in (("GET", "rooms"), ("POST", "rooms/x/cascading"), ("DELETE", "rooms/x")):
                status, answer = await call(method, path, header=header)
                assert (status, answer["error"]["code"]) == (401, 401)


async def test_who_has_another_portal_hears_of_rooms_and_makes_the_tokens() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        told: list[tuple[str, str]] = []
        cluster.rooms.on_created.append(lambda room: told.append(("created", room)))
        cluster.rooms.on_deleted.append(lambda room: told.append(("deleted", room)))
        asked: list[Admission] = []

        async def issue(admission: Admission) -> str:
            asked.append(admission)
            if admission.user == "nobody":
                raise UnavailableError("the portal is closed")
            return "a token of another portal"

        cluster.management.issue = issue
        await call("POST", "rooms", ROOM)
        body = {"user": "ada", "role": "viewer", "preference": {}}
        assert await call("POST", "rooms/room/tokens", body) == (200, "a token of another portal")
        assert asked == [Admission(room="room", user="ada", role="viewer")]
        status, answer = await call("POST", "rooms/room/tokens", body | {"user": "nobody"})
        assert (status, answer["error"]["message"]) == (503, "the portal is closed")
        await call("DELETE", "rooms/room")
        assert told == [("created", "room"), ("deleted", "room")]


async def test_rooms_are_created_shown_changed_and_deleted() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        status, room = await call("POST", "rooms", ROOM)
        assert (status, room["_id"], room["id"], room["name"]) == (200, "room", "room", "room")
        # Creating what is there gives what is there.
        assert await call("POST", "rooms", {"name": "other", "options": {"_id": "room"}}) == (200, room)
        status, drawn = await call("POST", "rooms", {"name": "no id"})
        assert len(drawn["_id"]) == 24
        _, rooms = await call("GET", "rooms")
        assert [one["id"] for one in rooms] == ["room", drawn["id"]]
        _, page = await call("GET", "rooms?page=2&per_page=1")
        assert [one["id"] for one in page] == [drawn["id"]]
        status, changed = await call("PUT", "rooms/room", {**room, "participantLimit": 1})
        assert (status, changed["participantLimit"]) == (200, 1)
        assert await call("GET", "rooms/room") == (200, changed)
        assert (await call("DELETE", "rooms/room"))[0] == 200
        assert (await call("DELETE", "rooms/room"))[0] == 404
        assert (await call("GET", "rooms/room"))[0] == 404


async def test_an_order_to_delete_a_room_names_its_placement() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        options = {"_id": "standup", "placementEpoch": 7}
        assert (await call("POST", "rooms", {"name": "standup", "options": options}))[0] == 200
        status, answer = await call("DELETE", "rooms/standup?placementEpoch=6")
        assert (status, answer["error"]["code"]) == (404, 404)  # that one has been replaced
        assert (await call("DELETE", "rooms/standup?placementEpoch=x"))[0] == 400
        assert (await call("GET", "rooms/standup"))[1]["placementEpoch"] == 7
        assert (await call("DELETE", "rooms/standup?placementEpoch=7"))[0] == 200
        assert (await call("POST", "rooms", ROOM))[0] == 200  # not control's
        assert (await call("DELETE", "rooms/room?placementEpoch=1"))[0] == 200


async def test_the_rooms_options_are_its_rules() -> None:
    options = {
        "_id": "room",
        "participantLimit": 1,
        "roles": [{"role": "only", "publish": {"audio": True, "video": False}}],
        "views": [{"label": "common"}],
    }
    async with lab_cluster() as cluster, rest(cluster) as call:
        _, room = await call("POST", "rooms", {"name": "room", "options": options})
        assert room["views"] == [{"label": "common"}]
        assert (await call("POST", "rooms/room/tokens", {"user": "u", "role": "presenter"}))[0] == 400
        async with member(cluster, role="only"):
            with pytest.raises(Exception, match="room-full"):
                async with member(cluster, role="only"):
                    pass
            await call("PUT", "rooms/room", {"options": {**options, "participantLimit": -1}})
            async with member(cluster, role="only"):
                pass


async def test_rooms_are_limited() -> None:
    async with lab_cluster(max_rooms=1) as cluster, rest(cluster) as call:
        await call("POST", "rooms", ROOM)
        assert (await call("POST", "rooms", {"name": "x"}))[0] == 409


@pytest.mark.parametrize(
    ("method", "path", "raw"),
    [
        ("POST", "rooms", b""),
        ("POST", "rooms", b"{"),
        ("POST", "rooms", b"\xff"),
        ("POST", "rooms", b"[" * 50_000),
        ("POST", "rooms", b'{"options":{}}'),
        ("POST", "rooms", b'{"name":"x","options":{"_id":"../x"}}'),
        ("POST", "rooms", b'{"name":"x","options":{"participantLimit":"many"}}'),
        ("PUT", "rooms/room", b'{"participantLimit":"many"}'),
        ("PUT", "rooms/room", b"[]"),
        ("POST", "rooms/room/tokens", b'{"user":""}'),
        ("GET", "rooms?page=0", b""),
        ("GET", "rooms?per_page=x", b""),
        ("GET", "rooms/room/bridges", b""),
        ("POST", "rooms/room/cascading", b"{}"),
    ],
)
async def test_malformed_requests_are_refused(method: str, path: str, raw: bytes) -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        await call("POST", "rooms", ROOM)
        status, answer = await call(method, path, raw=raw)
        assert (status, answer["error"]["code"]) == (400, 400)


async def test_a_body_too_large_is_refused() -> None:
    async with lab_cluster(rest=RestSettings(max_body_bytes=1024)) as cluster, rest(cluster) as call:
        assert (await call("POST", "rooms", {"name": "x", "options": {"views": "x" * 2000}}))[0] == 413


async def test_participants_and_streams_are_shown() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        await call("POST", "rooms", ROOM)
        assert await call("GET", "rooms/room/participants") == (200, [])
        assert await call("GET", "rooms/room/streams") == (200, [])
        assert (await call("GET", "rooms/room/participants/p"))[0] == 404
        assert (await call("DELETE", "rooms/room/participants/p"))[0] == 404
        async with member(cluster, user="alice") as alice:
            offer = TrackOffer(id="a", type="audio", format={"codec": "opus"})
            published = await alice.portal.publish([offer], Address("127.0.0.1", 9))
            _, [one] = await call("GET", "rooms/room/participants")
            assert (one["id"], one["user"], one["role"]) == (alice.id, "alice", "presenter")
            assert one["permission"]["publish"] == {"audio": True, "video": True}
            assert (await call("GET", f"rooms/room/participants/{alice.id}"))[1] == one
            _, [stream] = await call("GET", "rooms/room/streams")
            assert stream["id"] == published.stream
            assert stream["media"]["tracks"][0]["format"] == {"codec": "opus"}
            assert (await call("GET", f"rooms/room/streams/{published.stream}"))[1] == stream
            assert (await call("GET", "rooms/room/streams/unknown"))[0] == 404


# --- bridges --------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "room": "room",
    "token": "t" * 64,
    "selfCluster": "c1",
    "targetCluster": "c2",
    "evIP": "192.0.2.9",
    "evPort": 7001,
    "mediaIP": "192.0.2.9",
    "mediaPort": 7002,
    "evFingerprint": "ab" * 32,
    "mediaFingerprint": "cd" * 32,
}


async def test_bridges_are_asked_for_their_addresses_every_time() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        await call("POST", "rooms", ROOM)
        ask = {"targetCluster": "c2"}
        assert (await call("GET", "rooms/room/bridges", ask))[0] == 503
        async with bridge(cluster) as event:
            assert (await call("GET", "rooms/room/bridges", ask))[0] == 503
            async with bridge(cluster, "mediabridge") as media:
                media.answers["getInfo"] = {"ip": "192.0.2.8", "port": 7002}
                status, answer = await call("GET", "rooms/room/bridges", ask)
                assert (status, answer) == (
                    200,
                    {
                        "eventbridgeip": "192.0.2.7",
                        "eventbridgeport": 7000,
                        "eventbridgefingerprint": "ab" * 32,
                        "mediabridgeip": "192.0.2.8",
                        "mediabridgeport": 7002,
                    },
                )
                event.answers["getInfo"] = {"ip": "192.0.2.7", "port": 7777}
                _, answer = await call("GET", "rooms/room/bridges", ask)
                assert answer["eventbridgeport"] == 7777
                assert "eventbridgefingerprint" not in answer
                for wrong in ({"ip": ""}, "nonsense", RuntimeError("no")):
                    event.answers["getInfo"] = wrong
                    assert (await call("GET", "rooms/room/bridges", ask))[0] == 503
        assert (await call("GET", "rooms/other/bridges", ask))[0] == 404


async def test_cascading_is_ordered_of_both_bridges() -> None:
    async with (
        lab_cluster() as cluster,
        rest(cluster) as call,
        bridge(cluster) as event,
        bridge(cluster, "mediabridge") as media,
    ):
        await call("POST", "rooms", ROOM)
        assert await call("POST", "rooms/room/cascading", {"options": OPTIONS}) == (200, "ok")
        for fake in (event, media):
            [order] = await fake.was_asked("startCascading")
            assert order.args == [OPTIONS]
        plain = {key: value for key, value in OPTIONS.items() if not key.endswith("Fingerprint")}
        assert await call("POST", "rooms/room/cascading", {"options": plain}) == (200, "ok")
        media.answers["startCascading"] = RuntimeError("no")
        assert (await call("POST", "rooms/room/cascading", {"options": OPTIONS}))[0] == 503


async def test_the_end_of_a_cascade_is_ordered_of_the_bridges_that_there_are() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        assert (await call("DELETE", "rooms/room/cascading/c2"))[0] == 404
        await call("POST", "rooms", ROOM)
        assert await call("DELETE", "rooms/room/cascading/c2") == (200, "ok")
        async with bridge(cluster) as event, bridge(cluster, "mediabridge") as media:
            assert await call("DELETE", "rooms/room/cascading/c2") == (200, "ok")
            for fake in (event, media):
                [order] = await fake.was_asked("stopCascading")
                assert order.args == [{"room": "room", "targetCluster": "c2"}]
            event.answers["stopCascading"] = RuntimeError("no")
            assert (await call("DELETE", "rooms/room/cascading/c2"))[0] == 503


@pytest.mark.parametrize(
    "change",
    [
        {"evIP": None},
        {"evPort": "7001"},
        {"evPort": 0},
        {"token": ""},
        {"mediaPort": None},
        {"evFingerprint": "short"},
        {"selfCluster": "other"},
        {"targetCluster": "c1"},
        {"surprise": 1},
    ],
)
async def test_cascading_refuses_what_it_does_not_know(change: dict[str, Any]) -> None:
    async with lab_cluster() as cluster, rest(cluster) as call, bridge(cluster) as event:
        await call("POST", "rooms", ROOM)
        options = {key: value for key, value in {**OPTIONS, **change}.items() if value is not None}
        assert (await call("POST", "rooms/room/cascading", {"options": options}))[0] == 400
        assert not [request for request in event.asked if request.method == "startCascading"]


async def test_cascading_without_bridges_or_room_fails() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        assert (await call("POST", "rooms/room/cascading", {"options": OPTIONS}))[0] == 404
        await call("POST", "rooms", ROOM)
        assert (await call("POST", "rooms/room/cascading", {"options": OPTIONS}))[0] == 503


# --- stats ----------------------------------------------------------------------------------------


async def test_stats_tell_everything_to_those_who_know_the_secret() -> None:
    async with lab_cluster() as cluster, member(cluster, user="alice") as alice, bridge(cluster) as fake:
        fake.answers["getStats"] = {"links": [{"peer": "c2"}]}
        offer = TrackOffer(id="a", type="audio", format={"codec": "opus"})
        published = await alice.portal.publish([offer], Address("127.0.0.1", 9))
        subscription = (await alice.portal.subscribe(published.stream, ["audio"])).subscription
        assert (await stats(cluster, secret="wrong"))[0] == 401
        status, answer = await stats(cluster)
        assert status == 200
        assert (answer["cluster"], answer["region"], answer["registered"]) == ("c1", "eu-west", False)
        [room] = answer["rooms"]
        assert room["participants"] == [
            {"id": alice.id, "user": "alice", "role": "presenter", "cascading": False}
        ]
        assert room["streams"] == [
            {"id": published.stream, "cluster": "c1", "owner": alice.id, "tracks": ["audio"]}
        ]
        assert room["subscriptions"] == [
            {
                "id": subscription,
                "owner": alice.id,
                "by_bridge": False,
                "stream": published.stream,
                "tracks": ["audio"],
            }
        ]
        [track] = answer["tracks"]
        assert (track["kind"], track["frames"], track["sinks"]) == ("audio", 0, 1)
        assert answer["bridges"] == [
            {"id": fake.worker, "purpose": "eventbridge", "load": 0.0, "stats": {"links": [{"peer": "c2"}]}}
        ]
        fake.answers["getStats"] = RuntimeError("no")
        assert (await stats(cluster))[1]["bridges"][0]["stats"] is None
