"""The settings of the Janus connector: the table `[edge.janus]`. Every field has a unit and a default."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["JanusSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class JanusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[edge.janus]`: the Janus server whose VideoRooms are this cluster."""

    url: Annotated[str, Meta(pattern=r"^wss?://")] = "ws://127.0.0.1:8188"
    """Where the connector reaches the server's WebSocket API. Default ws://127.0.0.1:8188."""
    public_url: Annotated[str, Meta(pattern=r"^(wss?://.*)?$")] = ""
    """Where clients reach it; a join's answer says so. Default: the `url`."""
    api_secret: str = ""
    """What the server asks of every request (`api_secret` in janus.jcfg). Default: nothing."""
    admin_key: str = ""
    """What the VideoRoom plugin asks of who makes rooms (`admin_key` there). Default: nothing."""
    room_key: Annotated[str, Meta(max_length=256)] = ""
    """Key that the rooms' secrets and PINs are made of. The connector finds its rooms again after a restart
    if it is the same. Default: the cluster's `service_key`, which is drawn at each start unless it is set."""
    string_ids: bool = False
    """Whether the plugin's ids are text (`string_ids` there): rooms are then named like the conferences.
    Default: numbers, made of the conference's id."""
    rtp_host: str = ""
    """Address of this machine to which the server sends RTP, also what is listened on. Default: the
    cluster's `host`."""
    rtp_ports: tuple[Annotated[int, Meta(ge=0, le=65535)], Annotated[int, Meta(ge=0, le=65535)]] = (0, 0)
    """First and last UDP port for RTP. Default [0, 0]: any."""
    remote_host: str = ""
    """Address of the server to which RTP is sent. Default: the host of `url`."""
    remote_interface: str = ""
    """Interface or address on which the server listens for that. Default: all of its."""
    role: _Name = "presenter"
    """Role in the conference of somebody who joined the server without the id of a join's answer. Default
    presenter."""
    audio_codecs: str = "opus"
    """Codecs of sound in its rooms, the preferred first. Only opus goes to other clusters. Default opus."""
    video_codecs: str = "vp8,h264,vp9,av1"
    """Codecs of pictures in its rooms, the preferred one first. Default vp8,h264,vp9,av1."""
    max_publishers: _Count = 1000
    """Who may publish at once in a room whose conference sets no limit. Default 1,000."""
    max_shown: _Count = 256
    """Streams of other clusters that are shown in a room at once, each with two UDP ports. Default 256."""
    token_ttl: _Seconds = 180.0
    """Seconds within which a client must have joined with its token. Default 180."""
    max_tokens: _Count = 10_000
    """Tokens of a room that nobody has joined with; beyond that the oldest is void. Default 10,000."""
    connect_timeout: _Seconds = 3.0
    """Seconds until the server must have taken the connection. Default 3."""
    call_timeout: _Seconds = 3.0
    """Seconds that the server may take to answer. Default 3."""
    keepalive_interval: Annotated[float, Meta(gt=0, le=30)] = 5.0
    """Seconds between signs of life; the server forgets a session after 60 without. Default 5."""
    max_message_bytes: Annotated[int, Meta(ge=1024, le=1 << 26)] = 4 << 20
    """Largest message of the server, bytes; more ends the connection. Default 4 MiB."""
    max_waiting: _Count = 4096
    """News of a room that may wait; beyond that the connection is made anew. Default 4,096."""
    retry_base: _Seconds = 0.1
    """Seconds, upper end of the first retry's random delay; doubles with every failure. Default 0.1."""
    retry_cap: _Seconds = 2.0
    """Seconds that the delay grows to at most. Default 2."""
    leftover_after: _Seconds = 60.0
    """Seconds after the start until rooms of former starts that control has not asked for again are removed;
    the server lists them to who has the `admin_key`. Default 60."""
    refusal_pause: _Seconds = 5.0
    """Seconds until something that the server or the cluster refused is tried again. Default 5."""
    grace: _Seconds = 3.0
    """Seconds without a connection to the server after which those in its rooms count as gone. Default 3."""
