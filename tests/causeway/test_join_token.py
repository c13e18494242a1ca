from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from causeway.api.tokens import JoinClaims, Jwk
from causeway.join_token import MAX_TOKEN_CHARS, TokenRefusedError, kid_of, read_keys, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = {"k1": KEY.public_key(), "k2": OTHER.public_key()}
NOW = 1_800_000_000
CLAIMS = JoinClaims(
    iss="causeway",
    aud="eu-1",
    sub="p1",
    jti="j1",
    iat=NOW,
    exp=NOW + 300,
    conference="standup",
    role="presenter",
    user="Ada Lovelace ∂",
    incarnation="i1",
    placement=7,
)


def check(token: str, **changes: Any) -> JoinClaims:
    expected: dict[str, Any] = {
        "issuer": "causeway",
        "cluster": "eu-1",
        "incarnation": "i1",
        "now": NOW + 1,
        "leeway": 10.0,
    }
    return verify(token, KEYS, **(expected | changes))


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(
    header: Any = None,
    claims: dict[str, Any] | None = None,
    *,
    key: Ed25519PrivateKey = KEY,
    without: str = "",
) -> str:
    """A token with a good signature over whatever header and claims."""
    plain = json.loads(base64.urlsafe_b64decode(sign(KEY, kid="k1", claims=CLAIMS).split(".")[1] + "=="))
    head = {"alg": "EdDSA", "kid": "k1", "typ": "causeway-join+jwt"} if header is None else header
    body = {name: value for name, value in (plain | (claims or {})).items() if name != without}
    signed = text(json.dumps(head).encode()) + "." + text(json.dumps(body).encode())
    return signed + "." + text(key.sign(signed.encode()))


def test_what_was_signed_is_read() -> None:
    token = sign(KEY, kid="k1", claims=CLAIMS)
    assert check(token) == CLAIMS
    assert kid_of(token) == "k1"
    assert "=" not in token


def test_the_format_is_that_of_the_rfcs() -> None:
    # RFC 8037, appendix A.1 and A.4: key, input and signature.
    d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    key = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(d + "="))
    assert text(key.public_key().public_bytes_raw()) == x
    signature = key.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc")
    assert text(signature) == (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    token = sign(KEY, kid="k1", claims=CLAIMS)
    head, body, _ = (
        json.loads(base64.urlsafe_b64decode(part + "==")) for part in (*token.split(".")[:2], "e30")
    )
    assert head == {"alg": "EdDSA", "kid": "k1", "typ": "causeway-join+jwt"}
    assert body["aud"] == "eu-1"
    assert body["user"] == CLAIMS.user


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "another"}, "issuer"),
        ({"cluster": "eu-2"}, "another cluster"),
        ({"incarnation": "i2"}, "earlier start"),
        ({"now": NOW + 310.0}, "too old"),
        ({"now": NOW - 10.5}, "future"),
    ],
)
def test_a_token_for_something_else_is_refused(changes: dict[str, Any], why: str) -> None:
    token = sign(KEY, kid="k1", claims=CLAIMS)
    with pytest.raises(TokenRefusedError, match=why):
        check(token, **changes)


def test_clocks_may_be_apart_by_the_leeway() -> None:
    token = sign(KEY, kid="k1", claims=CLAIMS)
    for now in (NOW + 309.9, NOW - 10.0):
        assert check(token, now=now) == CLAIMS


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "kid": "k1", "typ": "causeway-join+jwt"},
        {"alg": "HS256", "kid": "k1", "typ": "causeway-join+jwt"},
        {"alg": "EdDSA", "kid": "k1", "typ": "JWT"},
        {"alg": "EdDSA", "typ": "causeway-join+jwt"},
        {"alg": "EdDSA", "kid": "k1", "typ": "causeway-join+jwt", "crit": ["exp"]},
        {"alg": "EdDSA", "kid": "k1", "typ": "causeway-join+jwt", "jwk": {"kty": "OKP"}},
        {"alg": "EdDSA", "kid": "../k1", "typ": "causeway-join+jwt"},
        ["EdDSA"],
        "",
    ],
)
def test_only_our_header_is_taken(header: Any) -> None:
    with pytest.raises(TokenRefusedError):
        check(forged(header))


@pytest.mark.parametrize("claim", list(JoinClaims.__struct_fields__))
def test_no_claim_may_be_missing(claim: str) -> None:
    with pytest.raises(TokenRefusedError):
        check(forged(without=claim))


@pytest.mark.parametrize(
    "claims",
    [{"aud": ["eu-1"]}, {"exp": "never"}, {"exp": 1e400}, {"exp": True}, {"placement": -1}, {"role": "a b"}],
)
def test_claims_have_their_types(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenRefusedError):
        check(forged(claims=claims))


def test_unknown_claims_are_skipped() -> None:
    assert check(forged(claims={"later": {"a": 1}})) == CLAIMS


def test_a_key_signs_for_itself_only() -> None:
    with pytest.raises(TokenRefusedError, match="signature"):
        check(forged(key=OTHER))
    with pytest.raises(TokenRefusedError, match="unknown key"):
        check(sign(KEY, kid="k3", claims=CLAIMS))


def test_there_is_one_text_for_each_token() -> None:
    head, body, signature = sign(KEY, kid="k1", claims=CLAIMS).split(".")
    # 64 bytes leave 4 unused bits in the last character: other values of them mean the same bytes.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]
    for token in (
        f"{head}.{body}.{twin}",
        f"{head}.{body}.{signature}==",
        f"{head}.{body}.{signature}\n",
        f"{head}.{body}.{signature}.",
        f"{head}..{signature}",
        f"{head}.{body}.",
        "x" * (MAX_TOKEN_CHARS + 1),
        "",
        "..",
    ):
        with pytest.raises(TokenRefusedError):
            check(token)


@given(st.text(max_size=300))
def test_any_text_is_refused_and_nothing_else_happens(token: str) -> None:
    for refuse in (check, kid_of):
        with pytest.raises(TokenRefusedError):
            refuse(token)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    token = sign(KEY, kid="k1", claims=CLAIMS)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != token[at]))
    with pytest.raises(TokenRefusedError):
        check(token[:at] + other + token[at + 1 :])


def test_deep_json_is_refused() -> None:
    deep = text(b"[" * 1400 + b"]" * 1400)
    with pytest.raises(TokenRefusedError):
        kid_of(f"{deep}.e30.{text(bytes(64))}"[:MAX_TOKEN_CHARS])


# --- key sets ---------------------------------------------------------------------------------


def jwk(key: Ed25519PrivateKey, kid: str) -> Jwk:
    return Jwk(kid=kid, x=text(key.public_key().public_bytes_raw()))


def encoded(*keys: Any) -> bytes:
    return msgspec.json.encode({"keys": list(keys)})


def test_key_sets_are_read() -> None:
    keys = read_keys(encoded(jwk(KEY, "k1"), jwk(OTHER, "k2")))
    assert {kid: key.public_bytes_raw() for kid, key in keys.items()} == {
        kid: key.public_bytes_raw() for kid, key in KEYS.items()
    }
    token = sign(KEY, kid="k1", claims=CLAIMS)
    read = verify(token, keys, issuer="causeway", cluster="eu-1", incarnation="i1", now=NOW)
    assert read == CLAIMS


def test_keys_of_other_kinds_are_skipped() -> None:
    rsa = {"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"}
    assert set(read_keys(encoded(rsa, {}, 5, jwk(KEY, "k1"), replace(jwk(KEY, "k9"), x="A" * 43)))) >= {"k1"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"keys":{}}', b"\xff", b'{"keys":' + b"[" * 100_000, encoded(*[{}] * 65)],
)
def test_what_is_no_key_set_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's or ours: both are ValueErrors
        read_keys(body)


def test_one_kid_is_one_key() -> None:
    with pytest.raises(ValueError, match="two keys"):
        read_keys(encoded(jwk(KEY, "k1"), jwk(OTHER, "k1")))
