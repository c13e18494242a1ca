"""A laboratory whose template asks for a tree: pictures are passed on, whoever passes them on."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.system.test_laboratory import Laboratory, until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

FAR: Final = "participant-ap-south"
RELAY: Final = ("cluster-us-east", "bridge-us-east")
"""The second region's: its participant comes first, so that the others are linked with it."""


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory(prefix="causeway-test-") as directory:
        Path(directory).chmod(0o711)
        started = Laboratory(Path(directory), "--regions", "3", "--topology", "tree", "--fps", "10")
        try:
            yield started
        finally:
            everybody = started.everybody()
            for name in RELAY:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(started.pids[name], signal.SIGCONT)
            started.end()
            until_gone(everybody, 10)


def shows(laboratory: Laboratory, text: str) -> bool:
    return text in laboratory.output.read_text().splitlines()[-1]


def test_pictures_go_on_without_the_cluster_that_passed_them_on(laboratory: Laboratory) -> None:
    laboratory.until(lambda: len(laboratory.captures(FAR)) > 0, "pictures were passed on")
    laboratory.until(lambda: shows(laboratory, "links up 2/2"), "two links for three clusters")

    relay = laboratory.pids["bridge-us-east"]
    os.kill(relay, signal.SIGKILL)
    laboratory.until(lambda: laboratory.pids.get("bridge-us-east") not in {None, relay}, "it is back")
    back_at = time.monotonic()
    laboratory.until(lambda: max(laboratory.captures(FAR)) > back_at, "pictures are passed on again")

    for name in RELAY:  # frozen, not dead: nobody is told, and nothing answers any more
        os.kill(laboratory.pids[name], signal.SIGSTOP)
    frozen_at = time.monotonic()
    laboratory.until(
        lambda: max(laboratory.captures(FAR)) > frozen_at + 1.0, "pictures come another way", seconds=60
    )
    assert (laboratory.captures(FAR))[-1] > frozen_at
