"""Places in a list that is read page by page, and the opaque text (a cursor) that clients get of them.

A page begins after a row, not after a number of rows: whatever is added or taken away in between, a row that
is there all the time is seen exactly once. Pure.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import msgspec

from control.errors import InvalidRequestError

__all__ = ["Place"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FORM: Final = 1
"""Leads every cursor; another number, another form."""


@dataclass(frozen=True, slots=True)
class Place:
    """After this row, in the order of creation and, within one moment, of ids."""

    created_at: datetime
    id: str

    def cursor(self) -> str:
        """Return the text."""
        moment = (self.created_at - _EPOCH) // _MICROSECOND
        return base64.urlsafe_b64encode(msgspec.json.encode((_FORM, moment, self.id))).rstrip(b"=").decode()

    @classmethod
    def read(cls, cursor: str) -> Self:
        """Read a text that `cursor` made; raises InvalidRequestError for any other."""
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            decoded = base64.b64decode(padded, altchars=b"-_", validate=True)
            form, moment, id_ = msgspec.json.decode(decoded, type=tuple[int, int, str])
            place = cls(_EPOCH + moment * _MICROSECOND, id_)
        except (UnicodeError, binascii.Error, msgspec.DecodeError, OverflowError):
            raise InvalidRequestError(_ADVICE) from None
        # Only what we could have made. No id has U+0000, which the database could not be asked for.
        if form != _FORM or "\x00" in id_ or place.cursor() != cursor:
            raise InvalidRequestError(_ADVICE)
        return place


_ADVICE: Final = "cursor: send `next` of the page before, as it was given"
