"""Write configs/causeway.toml from the settings structs: `.venv/bin/python tools/sample_config.py`.

The sentences are the structs' own docstrings, so that they are said once. When a struct has changed and the
file has not, tests/causeway/test_sample_config.py fails.
"""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any, Final

import msgspec

from bridges.settings import Settings as BridgeSettings
from control.settings import Settings as ControlSettings
from edge.settings import Settings as EdgeSettings
from lab.settings import Settings as LabSettings

TARGET: Final = Path(__file__).parents[1] / "configs" / "causeway.toml"
WIDTH: Final = 100
HEAD: Final = """\
# Causeway's settings: every option of every process, with its default.
#
# One file serves all processes on a machine; each reads its own tables and leaves the others alone:
#
#   causeway control --config FILE       [state] [database] [control] [log]
#   causeway db upgrade --config FILE    [state] [database] [log]
#   causeway bridge --config FILE        [bridge] [log]
#   python -m lab.cluster --config FILE  [lab] [log]
#   causeway edge rtp --config FILE      [lab] [edge] [log]
#
# The environment overrides the file: CAUSEWAY_<TABLE>__<KEY>, with two underscores before each deeper key,
# for example CAUSEWAY_DATABASE__URL or CAUSEWAY_CONTROL__LEASE__TTL. Give secrets that way, or keep this
# file readable by its owner only. A line of the form `#key = value` shows a default: take the # away to
# change it.
"""
UNDOCUMENTED: Final = {
    ("control.keys", "enrolment"): "For clusters: registration, heartbeats, reports. Default: none.",
    ("control.keys", "application"): "For applications: conferences and joins. Default: none.",
    ("control.keys", "operator"): "For operators: everything. Default: none.",
    ("log", "level"): "The least severe events that are logged: debug, info, warning or error. Default info.",
}
"""Fields whose struct documents them together, or whose name says it to a programmer."""


def main() -> None:
    """Write the file."""
    lines = [HEAD.rstrip("\n")]
    tables: dict[str, msgspec.Struct] = {}
    for spec in (ControlSettings, BridgeSettings, LabSettings, EdgeSettings):
        settings = spec()
        tables |= {name: getattr(settings, name) for name in spec.__struct_fields__}
    log = tables.pop("log")
    for name, table in [*tables.items(), ("log", log)]:
        _write_table(name, table, lines)
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_table(name: str, table: msgspec.Struct, lines: list[str]) -> None:
    spec = type(table)
    lines += ["", f"[{name}]"]
    for paragraph in inspect.cleandoc(spec.__doc__ or "").split("\n\n"):
        # "`[lab.rest]`: the management API." → "The management API."
        text = paragraph.removeprefix("The ").removeprefix(f"`[{name}]`").removeprefix(" table.").lstrip(": ")
        lines += _comment(text[:1].upper() + text[1:])
    sentences = _sentences(spec)
    deeper = []
    for key in spec.__struct_fields__:
        value = getattr(table, key)
        if isinstance(value, msgspec.Struct):
            deeper.append((f"{name}.{key}", value))
            continue
        sentence = sentences.get(key) or UNDOCUMENTED[name, key]
        lines += ["", *_comment(sentence), f"#{key} = {_toml(value)}"]
    for inner, value in deeper:
        _write_table(inner, value, lines)


def _sentences(spec: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring below each field of a struct."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(spec))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    field = ""
    for node in definition.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=field)):
                pass
            case ast.Expr(value=ast.Constant(value=str(text))) if field:
                found[field], field = text, ""
            case _:
                field = ""
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH)]


def _toml(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)


if __name__ == "__main__":
    main()
