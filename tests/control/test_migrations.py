"""Zero downtime: what docs/migrations.md promises of every migration, and of the schema that comes out."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from sqlalchemy import text

from causeway.errors import UnavailableError
from control.registry import schema
from control.registry.database import DatabaseSettings, connector, create_engine, migrate, pending
from control.registry.schema import Step

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

RECORDS: Final = sorted((Path(__file__).parent / "statements").glob("*.json"))
BEFORE_THE_RULES: Final = "0005"
"""Up to here no release was running that had to go on."""
TASTE: Final = "prefer-bigint-over-int"
OUTSIDE: Final = "require-lock-timeout,require-statement-timeout"
"""Set for every migration by whoever runs them; `test_every_statement…` proves it."""


# --- what migrations may do -------------------------------------------------------------------


def complaints(sql: str, *, contracts: bool = False) -> list[str]:
    """Return the names of the rules that the SQL breaks."""
    allowed = "ban-drop-column,ban-drop-table,adding-not-nullable-field" if contracts else ""
    program = shutil.which("squawk", path=str(Path(sys.executable).parent))
    assert program is not None
    command = [program, "--assume-in-transaction", "--pg-version", "15", "--reporter", "json"]
    done = subprocess.run(
        [*command, "--exclude", ",".join(filter(None, (TASTE, OUTSIDE, allowed)))],
        input=sql,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return sorted({each["rule_name"] for each in json.loads(done.stdout)})


@pytest.mark.parametrize("step", pending(BEFORE_THE_RULES), ids=lambda step: step.revision)
def test_a_migration_disturbs_nobody(step: Step) -> None:
    assert complaints(step.statements, contracts=step.contract is not None) == []


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE links DROP COLUMN error;", "ban-drop-column"),
        ("DROP TABLE links;", "ban-drop-table"),
        ("ALTER TABLE links RENAME COLUMN error TO reason;", "renaming-column"),
        ("ALTER TABLE links RENAME TO cascades;", "renaming-table"),
        ("ALTER TABLE links ALTER COLUMN error SET NOT NULL;", "adding-not-nullable-field"),
        ("ALTER TABLE links ALTER COLUMN attempts TYPE bigint;", "changing-column-type"),
        ("ALTER TABLE links ADD COLUMN price integer NOT NULL;", "adding-required-field"),
        ("CREATE INDEX links_error_idx ON links (error);", "require-concurrent-index-creation"),
        ("ALTER TABLE links ADD CONSTRAINT links_c CHECK (attempts > 0);", "constraint-missing-not-valid"),
        ("ALTER TABLE links ADD COLUMN drawn uuid DEFAULT gen_random_uuid();", "adding-field-with-default"),
    ],
)
def test_what_would_disturb_somebody_is_found(statement: str, rule: str) -> None:
    assert rule in complaints(statement)


def test_only_a_file_that_says_so_takes_something_away() -> None:
    assert complaints("ALTER TABLE links DROP COLUMN error;", contracts=True) == []
    assert complaints("ALTER TABLE links RENAME COLUMN error TO reason;", contracts=True) != []
    assert [step.revision for step in pending(None) if step.contract is not None] == []


async def test_every_statement_of_every_migration_has_its_timeouts(empty_database_url: str) -> None:
    """Asked of the server itself, at every statement that changes the schema."""
    engine = create_engine(empty_database_url, pooled=False)
    async with engine.begin() as connection:
        for statement in (
            "CREATE TABLE seen (tag text, lock_timeout text, statement_timeout text)",
            """
            CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO public.seen VALUES
                    (tg_tag, current_setting('lock_timeout'), current_setting('statement_timeout'));
            END $$
            """,
            "CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION note()",
        ):
            await connection.execute(text(statement))
    await migrate(empty_database_url, lock_timeout=3, statement_timeout=45)
    async with engine.connect() as connection:
        rows = (
            await connection.execute(text("SELECT DISTINCT lock_timeout, statement_timeout FROM seen"))
        ).all()
        assert [tuple(row) for row in rows] == [("3s", "45s")]
        altered = await connection.scalar(text("SELECT count(*) FROM seen WHERE tag = 'ALTER TABLE'"))
        assert altered is not None
        assert altered > 5
    await engine.dispose()


async def test_a_migration_that_takes_too_long_is_rolled_back(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(connection: Any, _on_step: object) -> None:
        connection.execute(text("SELECT pg_sleep(60)"))

    monkeypatch.setattr(schema, "_upgrade", sleep)
    with pytest.raises(UnavailableError, match=r"longer than 0\.1 s"):
        await migrate(empty_database_url, statement_timeout=0.1)


async def test_steps_are_told_one_by_one(empty_database_url: str) -> None:
    told: list[str] = []
    await migrate(empty_database_url, on_step=lambda revision, _seconds: told.append(revision))
    steps = pending(None)
    assert told == [step.revision for step in steps]
    assert all(step.title and step.statements for step in steps)


async def test_nothing_is_taken_away_from_a_program_that_runs(
    engine: AsyncEngine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = Step(revision="9999", title="Without x", contract="9998", statements="")
    monkeypatch.setattr(schema, "pending", lambda _revision: [coming])
    await migrate(database_url)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO replicas (id, name, version, revision, duties, lease_expires_at) VALUES "
                "(gen_random_uuid(), 'old-one', '1', '0010', '{}', clock_timestamp() + interval '1 min')"
            )
        )
    with pytest.raises(UnavailableError, match="still running: old-one"):
        await migrate(database_url)


# --- the previous release on the newest schema ------------------------------------------------


@pytest.fixture(params=RECORDS, ids=lambda path: path.stem)
def record(request: pytest.FixtureRequest) -> Any:
    """What tools/record_statements.py wrote of a former release."""
    return json.loads(request.param.read_text(encoding="utf-8"))


@pytest.fixture
async def connection(database_url: str) -> Any:
    connection = await connector(database_url, DatabaseSettings(statement_timeout=30))()
    try:
        yield connection
    finally:
        await connection.close()


async def test_every_statement_of_a_former_release_is_understood(record: Any, connection: Any) -> None:
    refused: list[str] = []
    statements = record["statements"]
    for statement in statements:
        try:
            await connection.prepare(statement)
        except asyncpg.PostgresError as error:
            refused.append(f"{error}: {statement}")
    assert refused == []
    assert len(statements) > 100


async def test_every_insert_of_a_former_release_names_what_has_no_default(
    record: Any, connection: Any
) -> None:
    rows = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'"
    )
    needed: dict[str, set[str]] = {}
    for row in rows:
        needed.setdefault(row["table_name"], set()).add(row["column_name"])
    found = 0
    for statement in record["statements"]:
        for table, columns in re.findall(r"INSERT INTO (\w+) \(([^)]*)\)", statement):
            found += 1
            assert needed.get(table, set()) <= {name.strip(' "') for name in columns.split(",")}, statement
    assert found > 10


async def test_what_a_former_release_did_can_be_done_again(record: Any, connection: Any) -> None:
    """Triggers of newer schemas see the rows of older programs, too."""
    traces = record["traces"]
    assert len(traces) > 10
    statements = record["statements"]
    for name, trace in traces.items():
        transaction = connection.transaction()
        await transaction.start()
        for number, arguments in trace:
            statement = statements[number]
            try:
                await connection.fetch(statement, *(untagged(each) for each in arguments))
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}: {statement} {arguments}")
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await transaction.rollback()


def untagged(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, said)] = value.items()
    match kind:
        case "bytes":
            return base64.b64decode(said)
        case "time":
            return datetime.fromisoformat(said)
        case "seconds":
            return timedelta(seconds=said)
        case "uuid":
            return uuid.UUID(said)
        case _:
            return [untagged(each) for each in said]
