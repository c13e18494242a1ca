"""What an origin's conference looks like: participants and streams, and a digest of them. Pure.

Both ends of a connection keep one for each origin and apply the same events to it, so their digests must be
the same at the same position. The digest of an entry is BLAKE2b with 16 bytes over `p` or `s`, the length of
the id as u32 big-endian, the id, and the entry's canonical encoding (bridges.wire.own.values); the digest of
the whole is the sum of these as numbers, modulo 2^128, 16 bytes big-endian.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridges.wire.own.values import canonical, decode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Change", "Picture", "PictureFullError", "difference"]

_MODULUS: Final = 1 << 128
_DIGEST_BYTES: Final = 16


class PictureFullError(ValueError):
    """More participants and streams, or more bytes of them, than are taken."""


class Change(NamedTuple):
    """An event of the kind that nodes send: `type` and `data`."""

    type: str
    data: Any


class Picture:
    """Participants and streams of one origin by id, each in its canonical encoding."""

    def __init__(self, *, max_entries: int, max_bytes: int, max_entry_bytes: int) -> None:
        self.participants: dict[str, bytes] = {}
        self.streams: dict[str, bytes] = {}
        self.bytes = 0
        """Of all ids and entries."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_entry_bytes = max_entry_bytes
        self._sum = 0

    def __len__(self) -> int:
        return len(self.participants) + len(self.streams)

    @property
    def digest(self) -> bytes:
        """16 bytes that are the same for equal pictures."""
        return self._sum.to_bytes(_DIGEST_BYTES, "big")

    def apply(self, type_: str, data: Any) -> None:
        """Change what an event changes; what it does not know, or speaks of nothing here, changes nothing.

        `data` has the shape of its type (bridges.wire.messages). Raises PictureFullError; then nothing has
        changed.
        """
        act = _ACTS.get(type_)
        if act is not None:
            act(self, data)

    def put_participant(self, id_: str, value: Any) -> None:
        """Set a participant, a value of JSON's. Raises PictureFullError."""
        self._put("p", self.participants, id_, canonical(value))

    def put_stream(self, id_: str, value: Any) -> None:
        """Set a stream, a value of JSON's. Raises PictureFullError."""
        self._put("s", self.streams, id_, canonical(value))

    def initialize(self) -> dict[str, dict[str, Any]]:
        """Return the data of an `initialize` event: `{participants, streams}`, by id."""
        return {
            "participants": {id_: decode_value(entry) for id_, entry in self.participants.items()},
            "streams": {id_: decode_value(entry) for id_, entry in self.streams.items()},
        }

    # --- inside ---------------------------------------------------------------------------------

    def _put(self, kind: str, entries: dict[str, bytes], id_: str, entry: bytes) -> None:
        if len(entry) > self._max_entry_bytes:
            raise PictureFullError(f"an entry of {len(entry)} bytes; {self._max_entry_bytes} are taken")
        old = entries.get(id_)
        grown = len(entry) + (len(id_.encode()) if old is None else -len(old))
        if (old is None and len(self) >= self._max_entries) or self.bytes + grown > self._max_bytes:
            raise PictureFullError(f"{len(self)} entries of {self.bytes} bytes are all that is taken")
        entries[id_] = entry
        self.bytes += grown
        self._sum = (self._sum + _hash(kind, id_, entry) - (_hash(kind, id_, old) if old else 0)) % _MODULUS

    def _drop(self, kind: str, entries: dict[str, bytes], id_: str) -> None:
        old = entries.pop(id_, None)
        if old is not None:
            self.bytes -= len(old) + len(id_.encode())
            self._sum = (self._sum - _hash(kind, id_, old)) % _MODULUS

    def _drop_participant(self, id_: str) -> None:
        self._drop("p", self.participants, id_)

    def _drop_stream(self, id_: str) -> None:
        self._drop("s", self.streams, id_)

    def _update_info(self, data: dict[str, Any]) -> None:
        entry = self.streams.get(data["id"])
        if entry is not None:
            self.put_stream(data["id"], {**decode_value(entry), "info": data["info"]})

    def _mute(self, data: dict[str, Any]) -> None:
        entry = self.streams.get(data["id"])
        if entry is not None:
            stream = decode_value(entry)
            _set_status(stream, data["track"], _status(muted=data["muted"]))
            self.put_stream(data["id"], stream)


_ACTS: Final[Mapping[str, Callable[[Picture, Any], None]]] = {
    "addParticipant": lambda picture, data: picture.put_participant(data["id"], data),
    "removeParticipant": Picture._drop_participant,  # noqa: SLF001 - its own table
    "addStream": lambda picture, data: picture.put_stream(data["id"], data),
    "removeStream": Picture._drop_stream,  # noqa: SLF001
    "updateStreamInfo": Picture._update_info,  # noqa: SLF001
    "setStreamMute": Picture._mute,  # noqa: SLF001
}


def difference(old: Picture, new: Picture) -> list[Change]:
    """Return events that make `old` into `new`, in an order that a node can follow.

    First what is gone, streams before participants; then what is new or other, participants before streams.
    """
    changes = [Change("removeStream", id_) for id_ in old.streams if id_ not in new.streams]
    changes += [
        Change("removeParticipant", id_)
        for id_, entry in old.participants.items()
        if new.participants.get(id_) != entry
    ]
    changes += [
        Change("addParticipant", decode_value(entry))
        for id_, entry in new.participants.items()
        if old.participants.get(id_) != entry
    ]
    for id_, entry in new.streams.items():
        before = old.streams.get(id_)
        if before is None:
            changes.append(Change("addStream", decode_value(entry)))
        elif before != entry:
            changes += _stream_changes(id_, decode_value(before), decode_value(entry))
    return changes


def _stream_changes(id_: str, before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Return the least that makes one stream into another: its info, its mutes, or all of it."""
    if {**before, "info": after.get("info")} == after:
        return [Change("updateStreamInfo", {"id": id_, "info": after["info"]})]
    mutes = []
    for kind in ("audio", "video"):
        statuses = {track.get("status") for track in after["media"]["tracks"] if track["type"] == kind}
        for muted in (False, True):
            if statuses == {_status(muted=muted)}:
                mutes.append(Change("setStreamMute", {"id": id_, "track": kind, "muted": muted}))
                _set_status(before, kind, _status(muted=muted))
    if before == after:
        return mutes
    return [Change("removeStream", id_), Change("addStream", after)]


def _set_status(stream: dict[str, Any], which: str, status: str) -> None:
    for track in stream["media"]["tracks"]:
        if which in {"av", track["type"], track["id"]}:
            track["status"] = status


def _status(*, muted: bool) -> str:
    return "inactive" if muted else "active"


def _hash(kind: str, id_: str, entry: bytes) -> int:
    name = id_.encode()
    data = kind.encode() + len(name).to_bytes(4, "big") + name + entry
    return int.from_bytes(blake2b(data, digest_size=_DIGEST_BYTES).digest(), "big")
