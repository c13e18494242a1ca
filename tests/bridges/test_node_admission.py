"""The one place where room tokens are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bridges.node.admission import admitting_node
from bridges.node.port import NodeUnreachableError, RpcError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Node:
    """A cluster with one room, whose node answers `token`, or fails with it."""

    worker_id = "eventbridge-0@test"
    node_id = worker_id

    def __init__(self, token: Any) -> None:
        self.token = token
        self.counters: dict[str, int] = {}

    async def find_conference_node(self, room: str) -> str:
        if room != "standup":
            raise RpcError("no such room")
        return "conference-0_1"

    async def call(self, target: str, method: str, args: Sequence[Any], *, timeout: float = 2.0) -> Any:
        assert (target, method, args) == ("conference-0_1", "getRoomToken", [])
        if isinstance(self.token, Exception):
            raise self.token
        return self.token


async def test_the_rooms_token_admits() -> None:
    assert await admitting_node(Node("s3cr3t"), "standup", "s3cr3t") == "conference-0_1"


@pytest.mark.parametrize("token", ["", "s3cr3", "s3cr3tt", "S3CR3T", "é"])
async def test_nothing_else_does(token: str) -> None:
    assert await admitting_node(Node("s3cr3t"), "standup", token) is None


@pytest.mark.parametrize("expected", ["", None, 0, [], {"token": "x"}])
async def test_a_node_without_a_token_admits_nobody(expected: Any) -> None:
    assert await admitting_node(Node(expected), "standup", "") is None
    assert await admitting_node(Node(expected), "standup", str(expected)) is None


async def test_failures_come_through() -> None:
    with pytest.raises(RpcError):
        await admitting_node(Node("s3cr3t"), "elsewhere", "s3cr3t")
    with pytest.raises(NodeUnreachableError):
        await admitting_node(Node(NodeUnreachableError("gone")), "standup", "s3cr3t")
