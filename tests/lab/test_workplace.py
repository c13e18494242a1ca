from __future__ import annotations

import socket
import stat
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.errors import ConfigError
from lab.launcher.workplace import free_ports, region_names, require_free, toml, workplace, write_private

if TYPE_CHECKING:
    from pathlib import Path

KEYS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
)
TABLES = st.dictionaries(KEYS, st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES))))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_temporary_workplace_can_be_traversed_and_goes() -> None:
    with workplace(None) as directory:
        assert mode(directory) == 0o711
        (directory / "file").write_text("x")
    assert not directory.exists()


def test_a_given_workplace_is_made_and_stays(tmp_path: Path) -> None:
    with workplace(tmp_path / "a" / "b") as directory:
        assert directory.is_absolute()
        (directory / "file").write_text("x")
    assert (tmp_path / "a" / "b" / "file").exists()
    with workplace(tmp_path / "a" / "b"):
        pass


def test_one_workplace_is_for_one_laboratory(tmp_path: Path) -> None:
    with workplace(tmp_path), pytest.raises(ConfigError, match="another laboratory"), workplace(tmp_path):
        pass


def test_a_workplace_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file"), workplace(tmp_path / "file"):
        pass


def test_regions_have_names_without_end() -> None:
    assert region_names(2) == ["eu-west", "us-east"]
    assert region_names(10)[7:] == ["eu-north", "region-9", "region-10"]
    assert len(set(region_names(50))) == 50


def test_a_taken_port_is_refused_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--port"):
            require_free(taken.getsockname()[1])
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        require_free(port)


def test_private_files_are_private_even_when_they_were_not(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert mode(file) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.toml"]


@given(TABLES)
def test_what_is_written_as_toml_reads_back(tables: dict[str, dict[str, object]]) -> None:
    assert tomllib.loads(toml(tables)) == tables
