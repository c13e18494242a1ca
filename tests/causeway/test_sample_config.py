"""The sample settings file is complete and tells the truth; tools/sample_config.py writes it anew."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from bridges.settings import Settings as BridgeSettings
from causeway.settings import TABLES, load
from control.settings import Settings as ControlSettings
from edge.settings import Settings as EdgeSettings
from lab.settings import Settings as LabSettings

SAMPLE: Final = Path(__file__).parents[2] / "configs" / "causeway.toml"
SPECS: Final[list[type[msgspec.Struct]]] = [ControlSettings, BridgeSettings, LabSettings, EdgeSettings]
OPTION: Final = re.compile(r"^#([a-z][a-z0-9_]*) = ", re.MULTILINE)


def with_every_option() -> dict[str, Any]:
    """Return the sample's tables as if every commented-out option were set."""
    return tomllib.loads(OPTION.sub(r"\1 = ", SAMPLE.read_text(encoding="utf-8")))


def flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def defaults() -> dict[str, Any]:
    result: dict[str, Any] = {}
    for spec in SPECS:
        result |= flat(msgspec.json.decode(msgspec.json.encode(spec())))
    return result


@pytest.mark.parametrize("spec", SPECS)
def test_every_process_accepts_the_sample_and_gets_its_defaults(spec: type[msgspec.Struct]) -> None:
    assert load(spec, file=SAMPLE, environment={}) == spec()


def test_every_option_is_in_the_sample_and_nothing_else() -> None:
    shown, there = set(flat(with_every_option())), set(defaults())
    assert shown - there == set(), "in the sample, but no option"
    assert there - shown == set(), "options that the sample does not show"


def test_every_option_shows_its_default() -> None:
    assert flat(with_every_option()) == defaults()


def test_every_table_is_one_that_some_process_reads() -> None:
    assert set(with_every_option()) == TABLES


def test_every_option_has_a_sentence_before_it() -> None:
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if OPTION.match(line) and not before.startswith("# ")
    ]
    assert bare == []
