"""Entity tags (RFC 9110, sections 8.8.3 and 13.1.1): a change is made only to what its author has seen.

    GET     handler answers   json(view, tag=tag_of(view))                      ETag: "…"
    PUT     handler passes    if_match(request).check  to the registry function, which calls it with the
            locked row's representation (the very value that GET makes its tag of), None for a missing one

The tag is made of a representation, or of as much of it as the change can touch: what a heartbeat alters
every second (load, last contact) does not belong into the tag of a cluster's settings. Pure: no request, no
database.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from control.errors import InvalidRequestError, PreconditionFailedError

__all__ = ["MAX_TAGS", "IfMatch", "tag_of"]

MAX_TAGS: Final = 16
"""Tags taken in one If-Match; nobody needs more than two."""

_DIGEST_BYTES: Final = 16
_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def tag_of(representation: object) -> str:
    """Return the strong entity tag, quotes included, of anything that can be written as JSON."""
    digest = hashlib.sha256(_ENCODER.encode(representation)).digest()[:_DIGEST_BYTES]
    return f'"{base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}"'


@dataclass(frozen=True, slots=True)
class IfMatch:
    """What a request demands of the present state: nothing, that it exists (`*`), or one of these tags."""

    anything: bool
    """No header: whatever is there may be changed."""
    tags: frozenset[str] | None = None
    """None: `*`."""

    @classmethod
    def parse(cls, header: str | None) -> Self:
        """Read an If-Match header; raises InvalidRequestError for one that is none."""
        if header is None:
            return cls(anything=True)
        if header.strip() == "*":
            return cls(anything=False)
        tags: set[str] = set()
        elements = [element.strip(" \t") for element in header.split(",", maxsplit=MAX_TAGS)]
        if len(elements) > MAX_TAGS:
            raise InvalidRequestError(f"If-Match: at most {MAX_TAGS} tags are taken")
        for element in elements:
            match = _TAG.fullmatch(element)
            if match is None:
                raise InvalidRequestError("If-Match: send `*` or the ETag as it was given, quotes included")
            if match[1] is None:  # a weak tag never matches in the strong comparison
                tags.add(match[2])
        return cls(anything=False, tags=frozenset(tags))

    def check(self, current: object | None) -> None:
        """Raise PreconditionFailedError unless the present representation (None: missing) is as demanded."""
        if self.anything:
            return
        if current is None:
            raise PreconditionFailedError("If-Match was sent, and there is nothing here")
        if self.tags is not None and tag_of(current) not in self.tags:
            raise PreconditionFailedError("it was changed since; read it again")
