"""The orders to cascade and to stop it, as a cluster gives them to its bridges.

`startCascading [options]`: the fields are those of OWT's management API; the two fingerprints are Causeway's
own, given where both clusters' bridges are Causeway's. `stopCascading [{room, targetCluster}]` is Causeway's:
OWT has no call that ends one link of a room.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bridges.node.port import RpcError

__all__ = ["CascadingOptions", "StopOptions", "parse_cascading", "parse_stop"]

_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Host = Annotated[str, Meta(min_length=1, max_length=253)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}$(?!\n)")]


class CascadingOptions(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "self_cluster": "selfCluster",
        "target_cluster": "targetCluster",
        "ev_ip": "evIP",
        "ev_port": "evPort",
        "media_ip": "mediaIP",
        "media_port": "mediaPort",
        "ev_fingerprint": "evFingerprint",
        "media_fingerprint": "mediaFingerprint",
    },
):
    """Connect `room` to the cluster `target_cluster`, whose bridges listen at the given addresses.

    `room` and `token` are those of the cluster that is connected to; unknown fields are ignored. Each kind of
    bridge needs its own address only.
    """

    room: _Id
    token: Annotated[str, Meta(min_length=1, max_length=512)]
    self_cluster: _Id
    target_cluster: _Id
    ev_ip: _Host | None = None
    ev_port: _Port | None = None
    media_ip: _Host | None = None
    media_port: _Port | None = None
    ev_fingerprint: _Fingerprint | None = None
    media_fingerprint: _Fingerprint | None = None

    def __repr__(self) -> str:  # without the token
        return f"CascadingOptions(room={self.room!r}, target_cluster={self.target_cluster!r})"


def parse_cascading(args: list[Any]) -> CascadingOptions:
    """Return the options of a startCascading call; raises RpcError when they are not of the shape."""
    try:
        return msgspec.convert(args, tuple[CascadingOptions])[0]
    except msgspec.ValidationError as error:
        # msgspec names the field and the expected type, never the value.
        raise RpcError(f"startCascading: {error}") from None


class StopOptions(msgspec.Struct, frozen=True, kw_only=True, rename={"target_cluster": "targetCluster"}):
    """Want `room` no longer connected to the cluster `target_cluster`; unknown fields are ignored."""

    room: _Id
    target_cluster: _Id


def parse_stop(args: list[Any]) -> StopOptions:
    """Return the options of a stopCascading call; raises RpcError when they are not of the shape."""
    try:
        return msgspec.convert(args, tuple[StopOptions])[0]
    except msgspec.ValidationError as error:
        raise RpcError(f"stopCascading: {error}") from None
