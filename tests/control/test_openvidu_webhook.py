from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.attendance_settings import AttendanceSettings
from control.cluster_settings import ProbeSettings
from control.errors import InvalidRequestError
from control.http.compat.openvidu import read_event
from control.http.edge import _shown as shown_path
from tests.control.openvidu_stub import OpenViduStub
from tests.control.service import Service, running, until

SELDOM = ProbeSettings(period=60.0, timeout=2.0, poll_interval=0.02)
"""So that nothing comes to light by a probe."""
BRIEF = AttendanceSettings(interval=0.05, duration=5.0, timeout=2.0)
SESSION = {"sessionId": "room-1", "uniqueSessionId": "room-1_1700000000000", "timestamp": 1700000000000}


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "name", "person"),
    [
        ({"event": "participantJoined", **SESSION, "connectionId": "con_1"}, "participantJoined", "con_1"),
        ({"event": "participantLeft", "sessionId": "r", "participantId": "p"}, "participantLeft", "p"),
        ({"participantLeft": {**SESSION, "connectionId": "con_1"}}, "participantLeft", "con_1"),
        ({"event": "sessionDestroyed", **SESSION, "reason": "lastParticipantLeft"}, "sessionDestroyed", None),
    ],
)
def test_both_forms_and_older_names_are_understood(
    message: dict[str, Any], name: str, person: str | None
) -> None:
    told = read_event(message)
    assert told is not None
    assert (told[0], told[1].person) == (name, person)


@pytest.mark.parametrize(
    "message",
    [{}, {"event": "sessionCreated", **SESSION}, {"event": 3}, {"event": None}, {"signalSent": {}}, SESSION],
)
def test_what_is_none_of_ours_is_passed_over(message: dict[str, Any]) -> None:
    assert read_event(message) is None


@pytest.mark.parametrize(
    "message",
    [
        {"event": "participantJoined"},
        {"event": "participantJoined", "sessionId": "r"},
        {"event": "participantLeft", "sessionId": 3, "connectionId": "c"},
        {"sessionDestroyed": []},
        {"event": "sessionDestroyed", "sessionId": ""},
    ],
)
def test_what_lacks_something_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        read_event(message)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["event", "sessionId", "connectionId", "participantLeft", "x"]),
        json | st.sampled_from(["participantJoined", "sessionDestroyed"]),
    )
)
def test_anything_is_read_or_refused(message: dict[str, Any]) -> None:
    try:
        told = read_event(message)
    except InvalidRequestError:
        return
    assert told is None or told[1].session_id


# --- the service --------------------------------------------------------------------------------


async def register(service: Service, stub: OpenViduStub) -> None:
    body = {
        "driver": "openvidu",
        "region": "eu",
        "rest_url": stub.url,
        "service_id": stub.service_id,
        "service_key": stub.service_key,
        "instance": "vidu",
        "incarnation": "1",
    }
    assert (await service.operator.put("/v1/clusters/vidu-1", json=body)).status_code == 200


async def tell(service: Service, event: str, **body: Any) -> int:
    answer = await service.nobody.post(
        f"/openvidu/{service.keys['enrolment']}/webhook", json={"event": event, **SESSION, **body}
    )
    return answer.status_code


async def people(service: Service) -> list[tuple[str, str]]:
    view = await service.conference("room-1")
    return sorted((each["user"], each["role"]) for each in view["participants"])


async def test_who_comes_and_goes_is_known_at_once(database_url: str) -> None:
    async with OpenViduStub() as stub, running(database_url, probe=SELDOM, attendance=BRIEF) as service:
        await register(service, stub)
        await service.create("room-1")
        assert (await service.join("room-1", user="ada")).status_code == 200
        async with service.engine.begin() as connection:  # so nobody is expected any more
            await connection.exec_driver_sql("DELETE FROM reservations")
        (connection_id,) = stub.connections["room-1"]
        stub.join("room-1", connection_id)
        assert await tell(service, "participantJoined", connectionId=connection_id) == 200
        await until(lambda: people(service), lambda there: there == [("ada", "presenter")])
        for _ in range(2):  # they come twice
            assert await tell(service, "participantLeft", connectionId=connection_id) == 200
        assert await people(service) == []
        assert await tell(service, "sessionDestroyed", reason="lastParticipantLeft") == 200
        assert await tell(service, "participantJoined", connectionId="x", sessionId="none-of-ours") == 200
        assert await tell(service, "sessionDestroyed", sessionId="none-of-ours") == 200


async def test_only_an_enrolment_key_opens_the_path(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for key in (service.keys["application"], service.keys["operator"], "cw_enrolment_x", "x"):
            answer = await service.nobody.post(f"/openvidu/{key}/webhook", json={"event": "x"})
            assert answer.status_code == 404
        assert await tell(service, "participantJoined") == 422


def test_the_key_is_not_logged() -> None:
    assert shown_path("/openvidu/cw_enrolment_secret/webhook") == "/openvidu/…/webhook"
    assert shown_path("/owt/cw_enrolment_secret/x") == "/owt/…/x"
