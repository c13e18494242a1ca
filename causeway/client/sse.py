"""Reading server-sent events (the HTML standard, section 9.2.6), however the bytes are cut. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from causeway.errors import UnavailableError

__all__ = ["MAX_MESSAGE_BYTES", "EventParser", "Message"]

MAX_MESSAGE_BYTES: Final = 8 << 20
"""A snapshot of the largest conferences has less."""


class Message(NamedTuple):
    """One event. `id` is the last one that was told, which the reader comes back with."""

    name: str
    data: str
    id: str


class EventParser:
    """`feed` it what arrives; a message of more than `limit` bytes raises UnavailableError."""

    def __init__(self, *, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()
        """The line that is not complete yet."""
        self._after_return = False
        """The last byte was a carriage return: a line feed would belong to it."""
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with this."""
        messages: list[Message] = []
        if self._after_return and data[:1] == b"\n":
            data = data[1:]
        self._after_return = data[-1:] == b"\r" if data else self._after_return
        self._pending += data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = self._pending.split(b"\n")
        self._pending = rest
        if self._size + len(rest) > self._limit:
            raise UnavailableError(f"an event is larger than {self._limit} bytes")
        for line in lines:
            self._size += len(line)
            if self._size > self._limit:
                raise UnavailableError(f"an event is larger than {self._limit} bytes")
            if line:
                self._take(line.decode("utf-8", errors="replace"))
            else:
                messages += self._complete()
        return messages

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\x00" not in value:
            self._id = value

    def _complete(self) -> list[Message]:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        return [Message(name, "\n".join(data), self._id)] if data else []
