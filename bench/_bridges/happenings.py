"""What happens in one conference of one cluster, by chance: the events that its node tells, and the state.

Pure. The objects have OWT's fields (docs/wire.md, "Event stream"), and some that a bridge does not know.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from random import Random

__all__ = ["Happenings", "Occupancy"]

Event = dict[str, Any]

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_KINDS: Final = {"audio": {"audio"}, "video": {"video"}, "av": {"audio", "video"}}


class Occupancy:
    """Participants and streams of one cluster in a conference, as a node knows them; events change them."""

    def __init__(self) -> None:
        self.participants: dict[str, Any] = {}
        self.streams: dict[str, Any] = {}

    def apply(self, event: Event) -> None:
        """Do what an event says. Raises KeyError when it is about what is not there."""
        data = event.get("data")
        match event["type"]:
            case "initialize":
                assert data is not None
                self.participants = dict(data["participants"])
                self.streams = dict(data["streams"])
            case "addParticipant":
                assert data is not None
                self.participants[data["id"]] = data
            case "removeParticipant":
                assert data is not None
                del self.participants[data]
            case "addStream":
                assert data is not None
                self.streams[data["id"]] = data
            case "removeStream":
                assert data is not None
                del self.streams[data]
            case "updateStreamInfo":
                assert data is not None
                self.streams[data["id"]] = {**self.streams[data["id"]], "info": data["info"]}
            case "setStreamMute":
                assert data is not None
                self.streams[data["id"]] = _muted(
                    self.streams[data["id"]], data["track"], muted=data["muted"]
                )
            case "onCascadingDisconnected":
                self.participants, self.streams = {}, {}

    def initialize(self) -> Event:
        """Return all of it as an event."""
        return {
            "type": "initialize",
            "data": {"participants": dict(self.participants), "streams": dict(self.streams)},
        }

    def digest(self) -> bytes:
        """Return what only an equal state has, whatever the order in which things came."""
        whole = _ENCODER.encode([self.participants, self.streams])
        return blake2b(whole, digest_size=16).digest()


class Happenings:
    """The conference at its own cluster. Every event differs from all before it."""

    def __init__(self, cluster: str, room: str, random: Random, *, people: int = 6) -> None:
        self.now: Final = Occupancy()
        """How it is."""
        self.count = 0
        """Events so far."""
        self._cluster = cluster
        self._room = room
        self._random = random
        self._people = people

    def next(self) -> Event:
        """Let something happen."""
        self.count += 1
        event = self._choose()
        self.now.apply(event)
        return event

    def _choose(self) -> Event:
        chance = self._random.random
        people, streams = list(self.now.participants), list(self.now.streams)
        if not people or (len(people) < self._people and chance() < 0.15):
            return {"type": "addParticipant", "data": self._participant()}
        if chance() < 0.1:
            return {"type": "removeParticipant", "data": self._random.choice(people)}
        if not streams or (len(streams) < self._people and chance() < 0.2):
            return {"type": "addStream", "data": self._stream(self._random.choice(people))}
        stream = self._random.choice(streams)
        return self._random.choice((self._remove, self._update, self._mute, self._speak))(stream)

    def _participant(self) -> Any:
        return {
            "id": f"{self._cluster}-p{self.count}",
            "user": f"user {self.count} ü",
            "role": "presenter",
            "portal": f"portal@{self._cluster}",
            "origin": {"isp": "isp", "region": "region"},
            "permission": {"publish": {"audio": True, "video": True}, "subscribe": {"audio": True}},
            "anything": [self.count, 2.5, None, {"ü": "ß"}],
        }

    def _stream(self, owner: str) -> Any:
        tracks = [
            {
                "id": f"a{self.count}",
                "type": "audio",
                "source": "mic",
                "format": {"codec": "opus"},
                "status": "active",
            },
            {
                "id": f"v{self.count}",
                "type": "video",
                "source": "camera",
                "format": {"codec": "vp8"},
                "parameters": {"resolution": {"width": 1280, "height": 720}},
                "status": "active",
            },
        ]
        return {
            "id": f"{self._cluster}-s{self.count}",
            "type": "forward",
            "media": {"tracks": tracks},
            "info": {"owner": owner, "type": "webrtc", "inViews": [], "attributes": {}},
            "cluster": self._cluster,
        }

    def _remove(self, stream: str) -> Event:
        return {"type": "removeStream", "data": stream}

    def _update(self, stream: str) -> Event:
        info = {**self.now.streams[stream]["info"], "attributes": {"name": f"name {self.count}"}}
        return {"type": "updateStreamInfo", "data": {"id": stream, "info": info}}

    def _mute(self, stream: str) -> Event:
        track, muted = self._random.choice(list(_KINDS)), self._random.random() < 0.5
        return {
            "type": "setStreamMute",
            "data": {"id": stream, "track": track, "muted": muted, "n": self.count},
        }

    def _speak(self, stream: str) -> Event:
        return {
            "type": "onAudioActiveness",
            "data": {"activeInputStream": stream, "target": {"view": "common", "n": self.count}},
        }


def _muted(stream: Any, track: str, *, muted: bool) -> Any:
    """Return a stream with the status of its tracks as a mute leaves them."""
    status = "inactive" if muted else "active"
    tracks = [
        {**each, "status": status} if each["type"] in _KINDS[track] else each
        for each in stream["media"]["tracks"]
    ]
    return {**stream, "media": {**stream["media"], "tracks": tracks}}
