"""One file, the environment, defaults; every mistake is one clear line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import pytest

from causeway.errors import ConfigError
from causeway.settings import MAX_FILE_BYTES, load

if TYPE_CHECKING:
    from pathlib import Path


class Deeper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ttl: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    names: list[str] = []


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int = 8400
    verbose: bool = False
    lease: Deeper = Deeper()


class Settings(msgspec.Struct, frozen=True):
    control: Control = Control()


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "causeway.toml"
    file.write_text(text)
    return file


def test_defaults_alone() -> None:
    assert load(Settings, file=None, environment={}) == Settings()


def test_file_over_defaults_and_environment_over_file(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[control]\nport = 1\nverbose = true\n[control.lease]\nttl = 5\n[bridge]\nx = "other"\n'
    )
    environment = {"CAUSEWAY_CONTROL__PORT": "2", "CAUSEWAY_CONTROL__LEASE__TTL": "7.5", "HOME": "/x"}
    settings = load(Settings, file=file, environment=environment)
    assert settings.control == Control(port=2, verbose=True, lease=Deeper(ttl=7.5))


def test_tables_of_other_processes_are_left_alone() -> None:
    assert load(Settings, file=None, environment={"CAUSEWAY_BRIDGE__HOST": "h"}) == Settings()


def test_environment_without_a_table_is_not_ours() -> None:
    assert load(Settings, file=None, environment={"CAUSEWAY_APPLICATION_KEY": "k"}) == Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[contrl]\nport = 1\n", r"unknown table \[contrl\]"),
        ("[control]\nprt = 1\n", "unknown field `prt`"),
        ('[control]\nport = "many"\n', r"Expected `int`, got `str` - at `\$.control.port`"),
        ("[control.lease]\nttl = 0\n", "> 0"),
        ("control\n", "not TOML"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(Settings, file=write(tmp_path, text), environment={})
    assert "\n" not in str(caught.value)
    assert "causeway.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        load(Settings, file=tmp_path / "nowhere.toml", environment={})


def test_a_folder_binary_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        load(Settings, file=tmp_path, environment={})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(Settings, file=binary, environment={})
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(Settings, file=huge, environment={})


def test_a_list_in_the_environment_is_json() -> None:
    name = "CAUSEWAY_CONTROL__LEASE__NAMES"
    assert load(Settings, file=None, environment={name: '["a", "b"]'}).control.lease.names == ["a", "b"]
    with pytest.raises(ConfigError, match="not a JSON list"):
        load(Settings, file=None, environment={name: "[a"})


@pytest.mark.parametrize("name", ["CAUSEWAY_CONTROL__PORT", "CAUSEWAY_CONTROL__NOPE", "CAUSEWAY_NOPE__X"])
def test_wrong_environment_is_one_clear_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Settings, file=None, environment={name: "x"})
    assert "\n" not in str(caught.value)


def test_the_variable_is_named_that_has_the_wrong_value(tmp_path: Path) -> None:
    file = write(tmp_path, "[control]\nport = 1\n")
    with pytest.raises(ConfigError, match=r"^CAUSEWAY_CONTROL__LEASE__TTL: Expected `float`, got `str`"):
        load(Settings, file=file, environment={"CAUSEWAY_CONTROL__LEASE__TTL": "soon"})


def test_environment_that_goes_through_a_value_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "[control]\nport = 1\n")
    with pytest.raises(ConfigError, match="CAUSEWAY_CONTROL__PORT__DEEP"):
        load(Settings, file=file, environment={"CAUSEWAY_CONTROL__PORT__DEEP": "1"})


def test_a_table_that_is_no_table_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "control = 5\n")
    with pytest.raises(ConfigError):
        load(Settings, file=file, environment={"CAUSEWAY_CONTROL__PORT": "1"})
