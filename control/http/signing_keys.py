"""Routes for the keys of join tokens: clusters fetch the public ones, operators list and rotate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causeway.api.tokens import JWKS_PATH, JwkSet, SigningKeyList
from control.http.edge import actor_of, json
from control.http.entry import OPERATORS, Entry

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.keyring import Keyring

__all__ = ["SigningKeyRoutes"]


class SigningKeyRoutes:
    """Serves the keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                JWKS_PATH,
                None,
                self.jwks,
                tag="keys",
                summary="The public keys that join tokens are checked with (RFC 7517); may be cached.",
                answers={200: JwkSet},
            ),
            Entry(
                "GET",
                "/v1/signing-keys",
                OPERATORS,
                self.show,
                tag="keys",
                summary="The keys that join tokens are signed with.",
                answers={200: SigningKeyList},
            ),
            Entry(
                "POST",
                "/v1/signing-keys",
                OPERATORS,
                self.rotate,
                tag="keys",
                summary="Make a new key; it signs once everybody has had time to learn of it.",
                answers={201: SigningKeyList},
            ),
        ]

    async def jwks(self, _request: Request) -> Response:
        """GET /.well-known/jwks.json."""
        answer = json(self._keyring.jwks())
        answer.headers["Cache-Control"] = f"public, max-age={self._keyring.max_age}"
        return answer

    async def show(self, _request: Request) -> Response:
        """GET /v1/signing-keys."""
        return json(self._keyring.shown())

    async def rotate(self, request: Request) -> Response:
        """POST /v1/signing-keys."""
        return json(await self._keyring.rotate(actor=actor_of(request)), status=201)
