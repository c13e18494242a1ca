"""Whether whoever dialled a bridge may enter a room: its conference node has the token to compare with."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridges.node.port import ClusterNode

__all__ = ["admitting_node"]


async def admitting_node(node: ClusterNode, room: str, token: str) -> str | None:
    """Return the RPC id of the conference node of `room` if `token` is the room's, None if it is not.

    Asked anew each time: nothing is remembered of an earlier check. Compared in constant time; a node that
    names no token, or none that is text, admits nobody. Raises RpcError when there is no such room,
    NodeUnreachableError when the cluster does not answer.
    """
    node_id = await node.find_conference_node(room)
    expected = await node.call(node_id, "getRoomToken", [])
    if not isinstance(expected, str) or not expected:
        return None
    return node_id if hmac.compare_digest(token.encode(), expected.encode()) else None
