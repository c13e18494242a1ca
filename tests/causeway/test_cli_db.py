from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from causeway.cli import db_actions, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def causeway(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command line in this process."""
    monkeypatch.setattr(db_actions, "configure", lambda settings, process: None)  # logging outlives a test
    for name in [name for name in os.environ if name.startswith("CAUSEWAY_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str, **environment: str) -> Outcome:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = run(arguments)
        return Outcome(code, *capsys.readouterr())

    return call


def test_upgrade_and_current_with_a_url(
    causeway: Callable[..., Outcome], empty_database_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "causeway.toml"
    config.write_text(f'[database]\nurl = "{empty_database_url}"\n[control]\nport = 1\n')
    dry = causeway("db", "upgrade", "--dry-run", "--config", str(config))
    assert dry.out.startswith("-- 0001 The registry: ")
    assert "CREATE TABLE replicas" in dry.out
    before = causeway("db", "current", "--config", str(config))
    assert before.code == 0
    assert before.out.startswith("empty (newest is ")
    assert before.out.endswith("; run: causeway db upgrade)\n")
    assert causeway("db", "upgrade", "--config", str(config)).out.splitlines()[-1].startswith("empty -> ")
    dry = causeway("db", "upgrade", "--dry-run", CAUSEWAY_DATABASE__URL=empty_database_url)
    assert dry.out == "-- 0 to do; nothing was changed\n"
    again = causeway("db", "upgrade", CAUSEWAY_DATABASE__URL=empty_database_url)
    assert again.out.endswith(" (already the newest)\n")
    after = causeway("db", "current", CAUSEWAY_DATABASE__URL=empty_database_url)
    assert after.out.endswith(" (the newest)\n")


def test_upgrade_of_the_embedded_database_as_a_process_of_its_own(state_folder: Path) -> None:
    program = "from causeway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "db", "upgrade", "--state", str(state_folder)],
        env={name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("0001 The registry: ")
    assert lines[-1].startswith("empty -> ")
    assert (state_folder / "postgres").is_dir()


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("mysql://u:hidden@h/d", 2, "causeway: database.url: must begin with postgresql://"),
        ("postgresql://u:hidden@127.0.0.1:1/d", 1, "causeway: database 127.0.0.1:1/d: "),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(
    causeway: Callable[..., Outcome], url: str, code: int, said: str
) -> None:
    done = causeway("db", "current", CAUSEWAY_DATABASE__URL=url)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1
    assert "hidden" not in done.err


@pytest.mark.parametrize("arguments", [["--config", "/nonexistent/none.toml"], ["--nonsense"]])
def test_a_wrong_option_is_one_line(causeway: Callable[..., Outcome], arguments: list[str]) -> None:
    done = causeway("db", "upgrade", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "arguments", [["db", "--help"], ["db", "upgrade", "--help"], ["db", "current", "-h"]]
)
def test_help_reads_well(causeway: Callable[..., Outcome], arguments: list[str]) -> None:
    done = causeway(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: causeway db")
