"""Client of control's HTTP API: one typed method per route, for clusters, applications and operators.

    async with ControlClient("https://control.example", key="cw_application_…") as control:
        answer = await control.join("standup", JoinRequest(user="alice", region="eu-west"))

Every method raises ApiError for a refusal (`type` is the problem's stable name, docs/errors.md) and
UnavailableError where control could not be asked or made itself not understood: no connection, no answer in
time, an answer that is none. After an UnavailableError the request may still have been carried out; PUT,
DELETE and heartbeat can simply be repeated, and so can a join with the same `idempotency_key`. Nothing is
retried here: the caller knows how long it may wait.
"""

from __future__ import annotations

from causeway.client.agents import AgentCalls
from causeway.client.clusters import ClusterCalls
from causeway.client.conferences import ConferenceCalls
from causeway.client.connection import Tagged
from causeway.client.events import EventCalls
from causeway.client.operators import OperatorCalls
from causeway.client.webhooks import WebhookCalls

__all__ = ["ControlClient", "Tagged"]


class ControlClient(AgentCalls, ClusterCalls, ConferenceCalls, EventCalls, OperatorCalls, WebhookCalls):
    """One control service, one key. An async context manager; any number of calls may run at once."""
