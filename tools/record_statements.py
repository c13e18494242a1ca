"""Record the SQL of a release, so that later ones can prove that it goes on working on their schema.

    .venv/bin/python tools/record_statements.py             (in the tree of that release)

Runs the tests that call the registry's functions and writes tests/control/statements/<revision>.json: every
text that the functions sent (`statements`), and for the tests of single aggregates what was sent one after
the other, with its arguments (`traces`). tests/control/test_migrations.py prepares the former and runs the
latter on the newest schema. A record is made once, when a release is made, and never changed.
"""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import base64
import json
import sys
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

HERE: Final = Path.cwd()
TESTS: Final = (
    "test_beats.py",
    "test_credentials.py",
    "test_http_keys.py",
    "test_keyring.py",
    "test_probing.py",
    "test_registry_conferences.py",
    "test_registry_templates.py",
    "test_service_cascade.py",
    "test_service_clusters.py",
    "test_service_conferences.py",
    "test_service_joining.py",
    "test_service_placement.py",
    "test_cluster_admin.py",
    "test_conference_pages.py",
    "test_owt_compat.py",
    "test_work.py",
)
TRACED: Final = ("test_credentials.py", "test_registry_conferences.py", "test_registry_templates.py")
"""Tests without tasks beside them: what they send comes in one order."""
_FAILED_AT_MOST: Final = 3
"""Tests that run into their timeouts on a busy machine have sent their statements all the same."""
KEPT: Final = 3000
"""Statements of one trace at most."""
OURS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "LOCK")


class Recorder:
    """A pytest plugin that writes down what goes to the database."""

    def __init__(self) -> None:
        self.statements: set[str] = set()
        self.traces: dict[str, list[list[Any]]] = {}
        self.trace: list[list[Any]] | None = None
        self.failed = 0

    def record(self, statement: str, sent: list[tuple[Any, ...]]) -> None:
        """Write down a statement, and each set of arguments that it was sent with."""
        text = statement.strip()
        if not text.startswith(OURS) or "pg_catalog" in text or "pg_stat" in text:
            return
        self.statements.add(text)
        if self.trace is not None and len(self.trace) < KEPT:
            self.trace += [[text, [tagged(each) for each in arguments]] for arguments in sent]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        """Keep the traces of tests that pass."""
        self.trace = [] if item.path.name in TRACED else None
        try:
            outcome = yield
        except BaseException:
            self.failed += 1
            raise
        if self.trace:
            self.traces[item.name] = self.trace
        self.trace = None
        return outcome


def tagged(value: Any) -> Any:
    """Return what JSON can say of an argument; test_migrations.py reads it."""
    match value:
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"time": value.isoformat()}
        case timedelta():
            return {"seconds": value.total_seconds()}
        case uuid.UUID():
            return {"uuid": str(value)}
        case list() | tuple():
            return {"list": [tagged(each) for each in value]}
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"no way to write down a {type(value).__name__}")


def written(recorder: Recorder) -> str:
    """Return the record, a line for each statement and each trace; traces name statements by their number."""
    statements = sorted(recorder.statements)
    numbers = {statement: number for number, statement in enumerate(statements)}
    traces = {
        name: [[numbers[statement], arguments] for statement, arguments in trace]
        for name, trace in recorder.traces.items()
    }
    lines = [json.dumps(statement, ensure_ascii=False) for statement in statements]
    told = [f"{json.dumps(name)}: {json.dumps(trace, ensure_ascii=False)}" for name, trace in traces.items()]
    return f'{{"statements": [\n{_joined(lines)}\n],\n"traces": {{\n{_joined(told)}\n}}}}\n'


def _joined(lines: list[str]) -> str:
    return ",\n".join(lines)


def main() -> None:
    """Record the release in the current directory."""
    sys.path.insert(0, str(HERE))
    from control.registry.lane import Lane  # noqa: PLC0415 - of the tree that is recorded
    from control.registry.schema import newest_revision  # noqa: PLC0415 - as above

    recorder = Recorder()

    @event.listens_for(Engine, "before_cursor_execute")
    def before(_connection: Any, _cursor: Any, statement: str, sent: Any, _context: Any, many: bool) -> None:  # noqa: FBT001 - SQLAlchemy calls it so
        recorder.record(statement, [tuple(each) for each in sent] if many else [tuple(sent)])

    fetch = Lane.fetch

    async def recorded(lane: Lane, statement: str, *arguments: Any) -> Any:
        recorder.record(statement, [arguments])
        return await fetch(lane, statement, *arguments)

    Lane.fetch = recorded  # type: ignore[method-assign,assignment] # to hear what passes
    tests = [str(path) for name in TESTS if (path := HERE / "tests" / "control" / name).exists()]
    pytest.main(["-q", "-p", "no:cacheprovider", "--timeout", "300", *tests], plugins=[recorder])
    if recorder.failed > _FAILED_AT_MOST:
        sys.exit("the tests of this release do not pass; nothing was written")
    target = HERE / "tests" / "control" / "statements" / f"{newest_revision()}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(written(recorder), encoding="utf-8")
    print(f"{target}: {len(recorder.statements)} statements, {len(recorder.traces)} traces")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
