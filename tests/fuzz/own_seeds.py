"""Where the fuzzing of our own wire begins: conversations as they are held, and what is wrong in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Raw

from bridges.wire.own.codec import encode
from bridges.wire.own.messages import (
    NOTHING,
    Close,
    Credit,
    Digest,
    Happened,
    Hello,
    HelloLimits,
    Leave,
    Offer,
    Open,
    Opened,
    Ping,
    Pong,
    Position,
    Reach,
    Resume,
    Snapshot,
    Take,
    Withdraw,
)
from bridges.wire.own.values import canonical
from tests.fuzz.own_targets import ROOMS, TOKEN

if TYPE_CHECKING:
    from bridges.wire.own.messages import Message

__all__ = ["own_seeds"]

_HELLO: Final = Hello([1], "us", HelloLimits(message=65_536, channels=4, lanes=4, waiting=4))
_PERSON: Final = {"p2": Raw(canonical({"id": "p2", "user": "ada"}))}
_TAKES: Final = {"eu": NOTHING}
_MANY: Final = 1 << 20


def _said(*said: tuple[int, Message | bytes], chunk: int = 0) -> bytes:
    """Return records: messages are framed where they arrive, bytes are as they are."""
    data = bytes([chunk])
    for lane, message in said:
        body = message if isinstance(message, bytes) else encode(message)[4:]
        flag = 0 if isinstance(message, bytes) else 0x80
        data += bytes([lane | flag]) + len(body).to_bytes(2, "big") + body
    return data


def _happened(seq: int, type_: str, data: object, *, origin: str = "us") -> Happened:
    hops = [origin] if origin == "us" else [origin, "us"]
    return Happened(1, origin, Position(3, seq), hops, type_, Raw(canonical(data)))


def _conversation() -> list[tuple[int, Message]]:
    """What a peer says in a conference that goes well; its channel is 1 at either end."""
    return [
        (1, Offer(1, "us", 3, ["us"])),
        (1, Offer(1, "ap", 3, ["ap", "us"])),
        (1, Snapshot(1, "us", 1, Position(3, 0), ["us"], _PERSON, {}, more=True)),
        (1, Snapshot(1, "us", 1, Position(3, 0), ["us"], {}, {})),
        (1, _happened(1, "onAudioActiveness", {"activeInputStream": "s", "target": None})),
        (1, _happened(2, "removeParticipant", "p2")),
        (1, Digest(1, "us", Position(3, 2), bytes(16))),
        (1, Digest(1, "us", Position(3, 2), bytes([7] * 16))),
        (1, Snapshot(1, "us", 2, Position(3, 2), ["us"], _PERSON, {})),
        (1, Snapshot(1, "ap", 1, Position(3, 0), ["ap", "us"], {}, {})),
        (1, _happened(1, "of a later version", [1, {"x": None}], origin="ap")),
        (1, Take(1, "eu", 2, Position(5, 0))),
        (1, Credit(1, 2 * _MANY)),
        (1, Withdraw(1, "ap")),
        (1, Leave(1, "eu")),
        (0, Ping(9)),
        (0, Pong(1)),
        (1, Close(1, 0x214, "the room is gone")),
    ]


def own_seeds() -> dict[str, list[bytes]]:
    """Return the beginnings of every target of our own wire."""
    opens = [Open(n, room, TOKEN, _TAKES, _MANY, Position(1, n)) for n, room in enumerate(ROOMS, 1)]
    talk = _conversation()
    wrong = Open(1, ROOMS[0], "guessed", {}, 1, NOTHING)
    ours = Open(1, ROOMS[0], TOKEN, {"eu": Position(9, 9)}, _MANY, Position(1, 1))
    reach = {"us": Reach(3, ["us"]), "ap": Reach(3, ["ap", "us"])}
    offering = Open(1, ROOMS[0], TOKEN, {}, _MANY, Position(1, 1), reach)
    said: list[Message] = [_HELLO, opens[0], *(message for _, message in talk)]
    messages = [encode(message) for message in said]
    return {
        "own_framing": [
            b"\x05" + b"".join(messages),
            *(b"\0" + message for message in messages),
            b"\0\0\0\0\0",
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\x03\x92\x63\x01",
            b"\0\0\0\0\x03\x92\x18\x01",
        ],
        "own_listener": [
            _said((0, _HELLO), (1, opens[0]), *talk, (1, opens[1]), chunk=3),
            _said((0, _HELLO), (1, opens[0]), (2, opens[1]), *talk[:6]),
            _said((0, _HELLO), (1, wrong), *talk[:2]),
            _said((0, _HELLO), (1, ours), (1, Resume(1, "us", 1, NOTHING)), talk[4]),
            _said((1, opens[0]), (0, _HELLO)),
            _said((0, _HELLO), (1, offering), (1, Leave(1, "eu")), (1, Withdraw(1, "ap"))),
            _said((0, _HELLO), (1, b"\0\0\0\x05abcde"), (0, b"\0\0\0\x03\x92\x63\x01")),
        ],
        "own_dialer": [
            _said((0, _HELLO), (1, Opened(1, _TAKES, _MANY)), *talk, chunk=3),
            _said((0, _HELLO), (1, Close(1, 0x210, "wrong token")), (2, Opened(2, _TAKES, _MANY))),
            _said((0, _HELLO), (1, opens[0])),
            _said((0, _HELLO), (1, Opened(1, _TAKES, _MANY, reach)), *talk[2:9]),
            _said((0, _HELLO), (1, Opened(1, {"eu": Position(9, 9)}, 1)), *talk[:3]),
        ],
    }
