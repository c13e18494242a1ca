"""Where status endpoints are: what `[bridge.status] listen` means, and which sockets this machine has.

Whoever may read a socket here may see which conferences and clusters a bridge serves; so the folder is its
user's alone, and one that somebody else could have made is not used.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from causeway.errors import ConfigError

__all__ = ["Http", "Unix", "find_sockets", "make_folder", "numbered", "parse", "runtime_folder"]

_PREFIX: Final = "bridge-"
_SUFFIX: Final = ".sock"
_MAX_PATH: Final = 100
"""Bytes; the name of a Unix socket has 107 at most, on some systems 103."""


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket; `shared`: in the folder where all of this user's bridges have theirs."""

    path: Path
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Http:
    """A loopback address."""

    host: str
    port: int


def parse(listen: str) -> Unix | Http | None:
    """Return where to listen; None: nowhere. Raises ConfigError.

    For `auto` the socket's name is drawn anew each time: several bridges may run at once.
    """
    if listen == "off":
        return None
    if listen == "auto":
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        return Unix(runtime_folder() / name, shared=True)
    if listen.startswith("unix:"):
        path = Path(listen.removeprefix("unix:"))
        if not path.is_absolute() or len(os.fsencode(path)) > _MAX_PATH:
            raise _wrong(f"a socket's path is absolute and has {_MAX_PATH} bytes at most")
        return Unix(path)
    return _parse_url(listen)


def numbered(listen: str, number: int) -> str:
    """Return where the process with that number listens, of several with one setting. Raises ConfigError.

    The first one at the very place, the others at sockets `path.1`, `path.2` … or at the ports after it.
    """
    place = parse(listen)
    if not number or place is None or (isinstance(place, Unix) and place.shared):
        return listen
    if isinstance(place, Unix):
        return f"{listen}.{number}"
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"http://{host}:{place.port and place.port + number}"


def runtime_folder() -> Path:
    """Return the folder for this user's sockets; it may not exist."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return Path(base) / "causeway"
    return Path(tempfile.gettempdir()) / f"causeway-{os.getuid()}"


def find_sockets(folder: Path | None = None) -> list[Path]:
    """Return the sockets of this user's bridges, those of killed ones among them, by name."""
    folder = folder or runtime_folder()
    if not _is_ours(folder):
        return []
    return sorted(each for each in folder.glob(f"{_PREFIX}*{_SUFFIX}") if each.is_socket())


def make_folder(folder: Path) -> None:
    """Make the folder for this user alone. Raises OSError, also when it is somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(folder):
        raise PermissionError(f"{folder} is not this user's alone")


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _parse_url(listen: str) -> Http:
    try:
        url = urlsplit(listen)
        port = url.port
        host = "127.0.0.1" if url.hostname == "localhost" else url.hostname or ""
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise _wrong(f"{listen!r} is none of them") from None
    if url.scheme != "http" or port is None or url.path not in {"", "/"} or url.username or url.query:
        raise _wrong(f"{listen!r} is none of them")
    if not loopback:
        raise _wrong(f"{host} is no address of this machine alone")
    return Http(host, port)


def _wrong(why: str) -> ConfigError:
    return ConfigError(
        f"bridge.status.listen: auto, unix:/path/of/socket, http://127.0.0.1:port or off ({why})"
    )
