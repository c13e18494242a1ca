"""Start a program that dies with the process that started it, even when that one is SIGKILLed.

    python -m causeway.leash --signal INT [--user NAME] [--parent PID] -- command …

drops to the user (with an empty list of supplementary groups), asks the kernel for `--signal` on the
parent's death (prctl(2), PR_SET_PDEATHSIG), makes sure that the parent has not died in the meantime, and
turns into the command: same process id, same open files, same working directory. Linux only.

The kernel's "parent" is the *thread* that forked, not the process: start a leashed program from a thread that
lives as long as the program shall, such as the one that runs the event loop, never from a pool's worker.
The leash does not pass on to what the command forks, and a command that is itself set-user-ID loses it.

This module starts with every child, so it imports next to nothing, and nothing of ours.
"""

from __future__ import annotations

import os
import signal as signals
import sys

TYPE_CHECKING = False  # typing is slow to import, and checkers know this name without it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["leashed", "main"]

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_EXIT_USAGE = 2
_EXIT_CANNOT_RUN = 126
_EXIT_PARENT_GONE = 125
_USAGE = "usage: python -m causeway.leash --signal NAME [--user NAME] [--parent PID] -- command …"


def leashed(command: list[str], *, signal: str, user: str | None = None) -> list[str]:
    """Return the argument vector that runs `command` on a leash held by the calling process.

    `signal` is the name without SIG ("INT", "TERM", "KILL"). `user` is whom to become first; that needs root.
    The interpreter runs isolated and without site-packages, so neither the environment nor a virtual
    environment's start-up files slow it down or change what it does.
    """
    options = ["--signal", signal, "--parent", str(os.getpid())]
    if user is not None:
        options += ["--user", user]
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *options, "--", *command]  # noqa: PTH100 - pathlib is slow to import, and this runs at every start of a child


def main(arguments: list[str]) -> NoReturn:
    """Do what the module's docstring says; never returns: exec or SystemExit with one line."""
    options, command = _parse(arguments)
    number = _signal_number(options.get("--signal", ""))
    parent = _parent(options.get("--parent"))
    if not sys.platform.startswith("linux"):
        _fail("a leash needs Linux (prctl PR_SET_PDEATHSIG)", _EXIT_CANNOT_RUN)
    # Load all before the user changes: the new one may be unable to read our libraries.
    prctl = _load_prctl()
    os.get_exec_path()  # imports what execvp needs
    if (user := options.get("--user")) is not None:
        _become(user)
    # Only now: the kernel forgets the wish when the user changes.
    if prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        _fail("prctl(PR_SET_PDEATHSIG) failed", _EXIT_CANNOT_RUN)
    if os.getppid() != parent:
        _fail("the process that started this one is gone", _EXIT_PARENT_GONE)
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument vector, no shell: this is the point
    except OSError as error:
        _fail(f"{command[0]}: {error.strerror}", _EXIT_CANNOT_RUN)


def _parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split into options and command. By hand: argparse costs more than the rest of the start."""
    if "--" not in arguments:
        _fail(_USAGE, _EXIT_USAGE)
    split = arguments.index("--")
    words, command = arguments[:split], arguments[split + 1 :]
    options = dict(zip(words[::2], words[1::2], strict=False))
    known = {"--signal", "--user", "--parent"}
    if not command or len(words) % 2 or not options.keys() <= known or "--signal" not in options:
        _fail(_USAGE, _EXIT_USAGE)
    return options, command


def _signal_number(name: str) -> int:
    try:
        return signals.Signals[f"SIG{name}"].value
    except KeyError:
        _fail(f"unknown signal {name!r}", _EXIT_USAGE)


def _parent(text: str | None) -> int:
    """Who must still be there. Without being told, whoever is there now: the race before us stays open."""
    if text is None:
        return os.getppid()
    if not text.isdecimal():
        _fail(_USAGE, _EXIT_USAGE)
    return int(text)


def _load_prctl() -> Callable[[int, int, int, int, int], int]:
    import ctypes  # noqa: PLC0415 - `leashed` is imported by processes that never need it

    prctl: Callable[[int, int, int, int, int], int] = ctypes.CDLL(None).prctl
    return prctl


def _become(user: str) -> None:
    import pwd  # noqa: PLC0415 - as above

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        _fail(f"no user {user!r} on this machine", _EXIT_CANNOT_RUN)
    try:
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except OSError as error:
        _fail(f"cannot become {user!r}: {error.strerror}", _EXIT_CANNOT_RUN)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"causeway.leash: {message}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
