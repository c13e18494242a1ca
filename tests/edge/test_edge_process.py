"""`causeway edge` as a command: what is wrong is said in one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from causeway.cli import run
from causeway.errors import ConfigError
from edge.process import run_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to do"),
        ("[edge]\ninputs = [{}]", "conference"),
        (
            "[edge]\noutputs = [{ conference = 'c', user = 'u', audio_port = 9 }]",
            "lab.control_url is not set",
        ),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "causeway.toml"
    file.write_text(text)
    assert run(["edge", "rtp", "--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_it_ends_in_good_order_after_a_signal_and_in_time() -> None:
    ended: list[str] = []

    @contextlib.asynccontextmanager
    async def work(*, stuck: bool) -> AsyncIterator[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            yield
        finally:
            if stuck:
                await asyncio.Event().wait()
            ended.append("in good order")

    run_process(work(stuck=False), stop_timeout=5)
    assert ended == ["in good order"]
    run_process(work(stuck=True), stop_timeout=0.05)
    assert len(ended) == 1


def test_the_one_error_of_a_task_comes_out_alone() -> None:
    async def fail() -> None:
        raise ConfigError("no")

    @contextlib.asynccontextmanager
    async def work() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            yield

    with pytest.raises(ConfigError, match="no"):
        run_process(work(), stop_timeout=5)
