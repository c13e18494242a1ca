"""Logs: one JSON object a line, and never a secret."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from causeway.telemetry import LogSettings, configure
configure(LogSettings(format="json", level="info"), process="test")
log = structlog.get_logger("causeway.test")
log.info("link.up", peer="c-1", token="hunter2", service_key="hunter2")
log.debug("not.shown")
logging.getLogger("some.library").warning("plain %s", "words")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("went.wrong")
"""


def test_lines_are_json_with_level_process_and_masked_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    ours, library, wrong = [json.loads(line) for line in done.stderr.splitlines()]
    assert ours | {"timestamp": ""} == {
        "event": "link.up",
        "peer": "c-1",
        "token": "***",
        "service_key": "***",
        "level": "info",
        "logger": "causeway.test",
        "process": "test",
        "timestamp": "",
    }
    assert library["event"] == "plain words"
    assert library["level"] == "warning"
    assert "ZeroDivisionError" in wrong["exception"]
    assert "hunter2" not in done.stderr
