"""Both ways to cascade lead to the same states of a link: bridges that are agents, and a cluster's own.

The laboratory with real processes, run one way and the other; what a link went through is read from the
conference's events, the same for both.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2
import pytest

from tests.system.test_laboratory import Laboratory, until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

WAYS = {"agent": "--agents", "driver": "--no-agents"}


@contextmanager
def laboratory(option: str) -> Iterator[Laboratory]:
    # Not pytest's own folder: as root Postgres becomes somebody else.
    with tempfile.TemporaryDirectory(prefix="causeway-test-") as directory:
        Path(directory).chmod(0o711)
        started = Laboratory(Path(directory), option)
        try:
            yield started
        finally:
            everybody = started.everybody()
            started.end()
            until_gone(everybody, 10)


def operator_key(laboratory: Laboratory) -> str:
    """The key that the launcher drew for this run; it gave it to control in its environment."""
    environment = Path(f"/proc/{laboratory.pids['control']}/environ").read_bytes().split(b"\0")
    name = b"CAUSEWAY_CONTROL__KEYS__OPERATOR="
    return next(each.removeprefix(name).decode() for each in environment if each.startswith(name))


class Asked:
    """Control's API, as an operator sees it."""

    @classmethod
    @contextmanager
    def open(cls, laboratory: Laboratory) -> Iterator[Self]:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{laboratory.port}/v1",
            headers={"Authorization": f"Bearer {operator_key(laboratory)}", "Accept": "application/json"},
            timeout=10,
        ) as http:
            yield cls(http)

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        (conference,) = self.get("/conferences")["conferences"]
        self.conference = f"/conferences/{conference['id']}"

    def get(self, path: str) -> Any:
        answer = self._http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def links(self) -> list[tuple[str, str, str]]:
        links = self.get(self.conference)["links"]
        return [(link["dialer"], link["listener"], link["state"]) for link in links]

    def course(self) -> list[str]:
        """What links went through, in order; the same twice in a row is once."""
        events = self.get(f"{self.conference}/events?limit=1000")["events"]
        course = [event["kind"] for event in events if event["kind"].startswith("link.")]
        return [kind for at, kind in enumerate(course) if at == 0 or course[at - 1] != kind]


def control_dies_and_comes_back_and_touches_nothing(run: Laboratory) -> None:
    began_at = time.monotonic()
    run.until(lambda: max(run.captures()) > began_at, "pictures flow")
    before = dict(run.pids)
    with Asked.open(run) as asked:
        run.until(lambda: [link[2] for link in asked.links()] == ["up"], "the link is up")
    died_at = time.monotonic()
    removed = len(run.removals())
    os.kill(before["control"], signal.SIGKILL)
    run.until(lambda: max(run.captures()) > died_at + 3, "pictures flow while control is away")
    run.until(lambda: run.pids.get("control") not in {None, before["control"]}, "control is back")

    def connected() -> bool:
        try:
            with Asked.open(run) as asked:
                agents = asked.get("/agents")["agents"]
                states = [link[2] for link in asked.links()]
                return all(agent["connected"] for agent in agents) and states == ["up"]
        except (httpx2.HTTPError, OSError, AssertionError):
            return False  # not yet

    run.until(connected, "the agents are connected again, and the link is up")
    assert len(run.removals()) == removed, "nobody's stream went"
    now = {name: pid for name, pid in run.pids.items() if name != "control"}
    assert now == {name: pid for name, pid in before.items() if name != "control"}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_link_goes_through_the_same_states_whoever_makes_it(way: str) -> None:
    with laboratory(WAYS[way]) as run, ExitStack() as stack:
        run.until_pictures()
        asked = stack.enter_context(Asked.open(run))
        connected = [agent["cluster"] for agent in asked.get("/agents")["agents"]]
        assert len(connected) == (2 if way == "agent" else 0)
        ends = {"lab-eu-west", "lab-us-east"}
        run.until(lambda: [link[2] for link in asked.links()] == ["up"], "the link is up")
        ((dialer, listener, _),) = asked.links()
        assert {dialer, listener} == ends
        assert asked.course() == ["link.wanted", "link.requested", "link.up"]

        os.kill(run.pids["bridge-" + listener.removeprefix("lab-")], signal.SIGKILL)
        # Its new address is not guessed: it is asked for anew. What the dead bridge's peer said last may come
        # after the order for a new link, and have it up too early.
        run.until(lambda: "link.requested" in asked.course()[3:], "the link is asked for anew", 40)
        run.until(lambda: asked.links() == [(dialer, listener, "up")], "and stays the only one", 40)
        run.until(lambda: asked.course()[-1] == "link.up", "and so its events say")
        course = asked.course()
        assert course[:3] == ["link.wanted", "link.requested", "link.up"]
        assert course[3] in {"link.down", "link.wanted"}, "it is not thought up while it is not"

        if way == "agent":  # in the same laboratory: another would take ten seconds to start
            control_dies_and_comes_back_and_touches_nothing(run)
