"""Secrets at rest: AES-256-GCM under one master key, every text bound to the row it belongs to.

A sealed value is `0x01 | nonce (12) | ciphertext and tag`. Its associated data names table, column and row,
so a value that is copied into another row does not open. This module must not know any table.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from typing import TYPE_CHECKING, ClassVar, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from causeway.errors import CausewayError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEY_BYTES", "SealError", "Vault", "load_master_key"]

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


class SealError(CausewayError):
    """A sealed value does not open: it was changed, belongs elsewhere, or the master key is another one."""

    code: ClassVar[str] = "seal-broken"


class Vault:
    """Seals and opens short secrets. `where` names the row: `"clusters.service_key", "eu-1"`."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: str, *where: str) -> bytes:
        """Return the secret as it may be stored at `where`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret.encode(), _binding(where))

    def open(self, sealed: bytes, *where: str) -> str:
        """Return the secret that was sealed for `where`; raises SealError."""
        head = len(_VERSION) + _NONCE_BYTES
        if not sealed.startswith(_VERSION) or len(sealed) < head:
            raise SealError(f"{where[0]}: not a sealed value")
        try:
            plain = self._cipher.decrypt(sealed[len(_VERSION) : head], sealed[head:], _binding(where))
        except InvalidTag:
            raise SealError(f"{where[0]}: does not open; is control.master_key another one?") from None
        return plain.decode()


def load_master_key(setting: str, *, state: Path) -> bytes:
    """Return the key from the setting (base64 of 32 bytes), else from `<state>/master.key`, made if missing.

    The file has mode 0600. Raises ConfigError for a key or file that cannot be used.
    """
    if setting:
        return _decode(setting, "control.master_key")
    file = state / "master.key"
    try:
        state.mkdir(parents=True, exist_ok=True)
        try:
            return _decode(file.read_text(encoding="ascii").strip(), str(file))
        except FileNotFoundError:
            return _create(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {getattr(error, 'strerror', None) or 'not text'}") from None


def _create(file: Path) -> bytes:
    """Write a new key beside the file and link it into place: of two that start at once one wins for both."""
    key = secrets.token_bytes(KEY_BYTES)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(base64.b64encode(key) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        return _decode(file.read_text(encoding="ascii").strip(), str(file))
    finally:
        draft.unlink()
    return key


def _decode(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{name}: must be the base64 of {KEY_BYTES} bytes (openssl rand -base64 32)")
    return key


def _binding(where: tuple[str, ...]) -> bytes:
    """Join the names unambiguously: each part is preceded by its length."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in where)
