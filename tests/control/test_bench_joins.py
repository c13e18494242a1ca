"""The benchmarks of joins run through and end with their line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.system
@pytest.mark.timeout(150)
@pytest.mark.parametrize("bench", ["join", "registry_scale"])
def test_quickly(bench: str) -> None:
    done = subprocess.run(
        [sys.executable, f"bench/{bench}.py", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["bench"] == bench
    assert all(value == 0 for name, value in told["figures"].items() if name.endswith("_failed"))
