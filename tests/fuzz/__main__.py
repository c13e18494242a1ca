"""Fuzz what reads a peer's bytes: `python -m tests.fuzz [TARGET …] [--seconds 60]`.

With atheris installed (`pip install atheris`) inputs are found by the branches that they take, and those that
take new ones are added to the corpus; without it, the corpus is mutated by Hypothesis. Ends with 1 if an
invariant did not hold, and says where the input is.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

_FOUND: Final = Path(tempfile.gettempdir()) / "causeway-fuzz"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--seeds", action="store_true", help="only write the seeds into the corpus")
    parser.add_argument("--list", action="store_true", help="only list the targets and their invariants")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return _inside(options.targets[0], options.seconds)

    from tests.fuzz import seeds  # noqa: PLC0415 - atheris must come first, inside
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - as above

    for name, inputs in seeds.seeds().items():
        seeds.keep(name, inputs)
    if options.seeds:
        return 0
    if options.list:
        for name, target in TARGETS.items():
            print(f"{name}\n    {target.__doc__}\n")  # noqa: T201 - what was asked for
        return 0
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    failed = [name for name in options.targets or TARGETS if not _fuzz(name, options.seconds)]
    print(f"fuzz: {len(failed)} failed {failed}" if failed else "fuzz: every invariant held")  # noqa: T201 - the result
    return 1 if failed else 0


def _fuzz(target: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own; return whether its invariant held."""
    from tests.fuzz.seeds import tidy  # noqa: PLC0415 - as above

    command = [sys.executable, "-m", "tests.fuzz", "--inside", target, "--seconds", str(seconds)]
    held = subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode == 0
    tidy(target)
    return held


def _inside(target: str, seconds: int) -> int:
    if importlib.util.find_spec("atheris") is None:
        return _with_hypothesis(target, seconds)
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["bridges", "edge", "tests.fuzz"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented
    from tests.fuzz.seeds import CORPUS  # noqa: PLC0415 - after the instrumented ones

    _FOUND.mkdir(exist_ok=True)
    arguments = [f"-max_total_time={seconds}", "-max_len=2048", "-timeout=10", "-verbosity=0"]
    atheris.Setup(
        [sys.argv[0], *arguments, f"-artifact_prefix={_FOUND}/{target}-", str(CORPUS / target)],
        TARGETS[target],
    )
    atheris.Fuzz()
    return 0


def _with_hypothesis(target: str, seconds: int) -> int:
    from tests.fuzz.mutation import explore  # noqa: PLC0415 - not with atheris

    return 0 if explore(target, seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
