"""Control's HTTP API as types: what crosses `/v1`, for the server, the client library and the clusters.

Names are those of docs/api.md. Reports of a cluster carry the epoch of its lease in the header
`Causeway-Epoch` (EPOCH_HEADER): a former holder of the registration is recognised by it and refused.
"""

from __future__ import annotations

from causeway.api.base import EPOCH_HEADER, ClusterId, ConferenceId, Module, Region
from causeway.api.clusters import (
    AuditEntry,
    AuditList,
    BlockRequest,
    BlockView,
    BridgeAddress,
    Capacity,
    ClusterList,
    ClusterPatch,
    ClusterRegistration,
    ClusterState,
    ClusterView,
    DrainRequest,
    DrainView,
    Heartbeat,
    Lease,
    Limits,
    LinkReport,
    Load,
    Location,
    ParticipantReport,
    PortalAddress,
    RoomReport,
)
from causeway.api.conferences import (
    ConferenceCreate,
    ConferenceList,
    ConferenceView,
    JoinAnswer,
    JoinRequest,
    LinkView,
    ParticipantView,
    PlacementView,
)
from causeway.api.keys import KeyCreate, KeyCreated, KeyId, KeyList, KeyView
from causeway.api.problems import Problem
from causeway.api.templates import (
    DEFAULT_TEMPLATE,
    RoleRules,
    RoomOptions,
    Template,
    TemplateList,
    TemplateName,
    TemplateView,
)

__all__ = [
    "DEFAULT_TEMPLATE",
    "EPOCH_HEADER",
    "AuditEntry",
    "AuditList",
    "BlockRequest",
    "BlockView",
    "BridgeAddress",
    "Capacity",
    "ClusterId",
    "ClusterList",
    "ClusterPatch",
    "ClusterRegistration",
    "ClusterState",
    "ClusterView",
    "ConferenceCreate",
    "ConferenceId",
    "ConferenceList",
    "ConferenceView",
    "DrainRequest",
    "DrainView",
    "Heartbeat",
    "JoinAnswer",
    "JoinRequest",
    "Lease",
    "Limits",
    "LinkReport",
    "LinkView",
    "Load",
    "Location",
    "Module",
    "ParticipantReport",
    "ParticipantView",
    "PlacementView",
    "PortalAddress",
    "Problem",
    "Region",
    "RoleRules",
    "RoomOptions",
    "RoomReport",
    "Template",
    "TemplateList",
    "TemplateName",
    "TemplateView",
]
