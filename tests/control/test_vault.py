from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.errors import ConfigError
from control.security.vault import SealError, Vault, load_master_key

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3))
def test_what_is_sealed_opens_in_its_place(secret: str, where: list[str]) -> None:
    sealed = Vault(KEY).seal(secret, *where)
    assert Vault(KEY).open(sealed, *where) == secret
    assert len(secret) < 8 or secret.encode() not in sealed


@given(st.binary(max_size=80))
def test_anything_else_is_the_one_error(sealed: bytes) -> None:
    with pytest.raises(SealError):
        Vault(KEY).open(sealed, "t")


def test_a_value_opens_only_in_its_row_with_its_key_and_unchanged() -> None:
    vault = Vault(KEY)
    sealed = vault.seal("secret", "t", "ab", "c")
    for where in (("t", "a", "bc"), ("t", "abc"), ("u", "ab", "c"), ("t", "ab", "c", "")):
        with pytest.raises(SealError):
            vault.open(sealed, *where)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(SealError):
            vault.open(bytes(changed), "t", "ab", "c")
    with pytest.raises(SealError, match="master_key"):
        Vault(KEY[::-1]).open(sealed, "t", "ab", "c")
    assert vault.seal("secret", "t") != vault.seal("secret", "t")


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_master_key("", state=state), range(16)))
    assert len(keys) == 1
    assert stat.S_IMODE((state / "master.key").stat().st_mode) == 0o600
    assert [file.name for file in state.iterdir()] == ["master.key"]


def test_the_setting_goes_before_the_file(tmp_path: Path) -> None:
    assert load_master_key(base64.b64encode(KEY).decode(), state=tmp_path) == KEY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["x", base64.b64encode(KEY[1:]).decode(), "é" * 32])
def test_a_key_that_is_none_is_one_clear_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control\.master_key"):
        load_master_key(text, state=tmp_path)
    (tmp_path / "master.key").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"master\.key"):
        load_master_key("", state=tmp_path)
