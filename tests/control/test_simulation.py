from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench._simulation import replica
from bench._simulation.kernel import Event, Future, Host, Kernel, LateError
from bench._simulation.tables import Said, Tables
from bench._simulation.world import Plot, simulate
from bench.simulate import main
from control.cascade import plan as real
from control.cascade.view import (
    Action,
    FetchBridges,
    ForgetLink,
    MoveClients,
    RemoveRoom,
    StopCascade,
    UnassignAgent,
)

if TYPE_CHECKING:
    from datetime import datetime

    from control.cascade.topology import TopologyKind
    from control.cascade.view import View

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_two_hundred_schedules(first: int) -> None:
    for seed in range(first, first + 20):
        outcome = simulate(seed, Plot())
        assert not outcome.problems, "\n".join([*outcome.trace, f"seed {seed}", *outcome.problems])


def test_more_of_everything() -> None:
    plot = Plot(clusters=7, conferences=3, people=24, replicas=3, seconds=90.0)
    for seed in range(1_000_000, 1_000_004):
        outcome = simulate(seed, plot)
        assert not outcome.problems, "\n".join([*outcome.trace, f"seed {seed}", *outcome.problems])


@pytest.mark.parametrize("topology", ["tree", "star"])
def test_many_clusters_that_relay(topology: TopologyKind) -> None:
    plot = Plot(clusters=10, conferences=1, people=24, topology=topology)
    for seed in range(2_000_000, 2_000_004):
        outcome = simulate(seed, plot)
        assert not outcome.problems, "\n".join([*outcome.trace, f"seed {seed}", *outcome.problems])


def test_a_seed_says_everything_wherever_it_is_played() -> None:
    """Also where sets of strings are in another order."""
    code = (
        "from hashlib import sha256; from bench._simulation.world import Plot, simulate\n"
        "for seed in range(3):\n"
        "    print(sha256('\\n'.join(simulate(seed, Plot()).trace).encode()).hexdigest())"
    )
    here = [hashlib.sha256("\n".join(simulate(seed, Plot()).trace).encode()).hexdigest() for seed in range(3)]
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert told.stdout.split() == here


def without(*kinds: type[Action]) -> object:
    """The plan with something forgotten."""

    def plan(view: View, now: datetime) -> tuple[Action, ...]:
        return tuple(action for action in real.plan(view, now) if not isinstance(action, kinds))

    return plan


@pytest.mark.parametrize(
    "forgotten",
    [FetchBridges, RemoveRoom, StopCascade, ForgetLink, MoveClients, UnassignAgent],
    ids=lambda kind: kind.__name__,
)
def test_whatever_the_plan_forgets_is_noticed(
    forgotten: type[Action], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "plan", without(forgotten))
    monkeypatch.setattr(replica, "next_look", lambda _view, _now: None)
    assert any(simulate(seed, Plot()).problems for seed in range(30))


def test_what_is_not_asked_for_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that stays down, or was ordered in vain, has to be asked for again some time."""
    monkeypatch.setattr(replica, "next_look", lambda _view, _now: None)
    assert any(simulate(seed, Plot()).problems for seed in range(60))


def test_reports_that_come_late_are_noticed_where_nothing_orders_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admit = Tables._admit

    def without_order(tables: Tables, said: Said, *about: str, **more: Any) -> None:
        admit(tables, said._replace(number=None), *about, **more)

    monkeypatch.setattr(Tables, "_admit", without_order)
    found = (problem for seed in (43, 63, 83, 88, 98) for problem in simulate(seed, Plot()).problems)
    assert any("is taken to be in" in problem for problem in found)


def test_rooms_that_are_left_over_are_noticed_where_nobody_looks_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(_self: replica.Replica, _name: str) -> None:
        return

    monkeypatch.setattr(replica.Replica, "_sweep_cluster", nothing)
    found = (problem for seed in (2, 176, 187, 234) for problem in simulate(seed, Plot()).problems)
    assert any("is left over" in problem for problem in found)


def test_a_failure_is_printed_with_its_trace_and_how_to_play_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replica, "plan", without(RemoveRoom))
    assert main(["--seed", "0", "--schedules", "10", "--conferences", "1"]) == 1
    printed = capsys.readouterr().out
    assert "failed:" in printed
    assert "wants into room0" in printed
    assert "again: python bench/simulate.py --seed " in printed
    assert '"bench": "simulate"' in printed.splitlines()[-1]


def test_all_is_well_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["--seed", "3", "--trace"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 20


# --- virtual time -----------------------------------------------------------------------------


def test_things_happen_at_their_time_and_in_the_order_in_which_they_were_asked_for() -> None:
    kernel, seen = Kernel(), list[tuple[float, str]]()
    host = Host(kernel, "h")

    async def work(name: str, pause: float) -> None:
        await kernel.sleep(pause)
        seen.append((kernel.now, name))

    for name, pause in (("late", 2.0), ("one", 1.0), ("other", 1.0)):
        host.spawn(work(name, pause))
    kernel.run(1.5)
    assert seen == [(1.0, "one"), (1.0, "other")]
    assert kernel.now == 1.5
    kernel.run(3.0)
    assert seen[-1] == (2.0, "late")


def test_who_is_killed_takes_no_step_more_and_who_is_frozen_takes_it_later() -> None:
    kernel, seen = Kernel(), list[tuple[float, str]]()
    hosts = {name: Host(kernel, name) for name in ("killed", "frozen", "well")}

    async def work(name: str) -> None:
        try:
            await kernel.sleep(1.0)
            seen.append((kernel.now, name))
        finally:
            seen.append((kernel.now, f"{name} ends"))

    for name, host in hosts.items():
        host.spawn(work(name))
    kernel.run(0.5)
    hosts["killed"].kill()
    hosts["frozen"].freeze(4.5)
    hosts["killed"].spawn(work("never"))
    kernel.run(10.0)
    assert seen == [
        (0.5, "killed ends"),
        (1.0, "well"),
        (1.0, "well ends"),
        (5.0, "frozen"),
        (5.0, "frozen ends"),
    ]


def test_waiting_ends_with_the_answer_or_in_time() -> None:
    kernel, seen = Kernel(), list[int | str]()
    host, flag = Host(kernel, "h"), Event()
    never: Future[int] = Future()
    soon: Future[int] = Future()

    async def work() -> None:
        answer = await kernel.within(soon, 5.0)
        seen.append(answer)
        try:
            await kernel.within(never, 1.0)
        except LateError as error:
            seen.append(str(error))
        await flag.wait()
        seen.append("flag")

    host.spawn(work())
    kernel.later(1.0, lambda: soon.succeed(7))
    kernel.run(4.0)
    flag.set()
    kernel.run(5.0)
    assert seen == [7, "no answer within 1 s", "flag"]
