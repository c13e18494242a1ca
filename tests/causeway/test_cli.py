from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from causeway import __version__
from causeway import cli as command_line
from causeway.cli import COMMANDS, LazyCommand, run
from causeway.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    "aiohttp",
    "aioquic",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "av",
    "numpy",
    "rich",
    "control",
    "bridges",
    "lab",
)


def failing(error: BaseException) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command("fail", callback=fail)


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> object:
    def install(error: BaseException) -> None:
        monkeypatch.setitem(COMMANDS, "fail", LazyCommand(f"{__name__}:installed", "Fails."))
        monkeypatch.setattr(sys.modules[__name__], "installed", failing(error), raising=False)

    return install


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"causeway {__version__}\n"


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys\n"
        "from causeway.cli import run\n"
        "code = run(['--help'])\n"
        f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30
    )
    assert "HEAVY []" in done.stdout
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_every_command_says_what_it_does_and_gives_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: causeway {name}")
    assert text.count(f"causeway {name}") >= 2


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["lab", "--nonsense"],
        ["lab", "--regions", "none"],
        ["lab", "--for", "-1"],
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("causeway: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("name", ["control", "bridge"])
def test_missing_settings_file_is_one_line_and_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--config", str(tmp_path / "missing.toml")]) == 2
    assert "missing.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("the port\nis odd"), 2, "causeway: the port is odd\n"),
        (UnavailableError("no database"), 1, "causeway: no database\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
    ],
)
def test_failures_become_one_line_and_a_code(
    error: BaseException, code: int, line: str, fail_with: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(fail_with)
    fail_with(error)
    assert run(["fail"]) == code
    assert capsys.readouterr().err.removeprefix("\n") == line


def test_a_defect_shows_its_trace(fail_with: object) -> None:
    assert callable(fail_with)
    fail_with(ZeroDivisionError("defect"))
    with pytest.raises(ZeroDivisionError):
        run(["fail"])


def test_a_target_that_is_no_command_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "odd", LazyCommand("causeway:__version__", "Odd."))
    with pytest.raises(TypeError, match="no click command"):
        run(["odd"])


def test_lab_without_its_extra_is_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else name)
    assert run(["lab", "--for", "1"]) == 2
    assert capsys.readouterr().err == (
        "causeway: the laboratory needs av, which the extra `lab` brings: pip install 'causeway[lab]'\n"
    )


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "run", lambda _arguments: 7)
    with pytest.raises(SystemExit) as exit_:
        command_line.main(["anything"])
    assert exit_.value.code == 7


def test_python_m_causeway_is_the_console_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "causeway", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == f"causeway {__version__}\n"
