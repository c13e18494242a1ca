"""OWT's own configuration of a bridge agent, `agent.toml`, as a source of settings.

The keys are those of owt-server 5.x: `event_bridge/agent.toml` and `media_bridge/agent.toml`, one file for
one bridge. What it says fills settings that are at their defaults; what is set otherwise goes before it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import quote

import msgspec
import structlog
from msgspec import Meta, Struct, structs

from causeway.errors import ConfigError
from causeway.settings import read_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bridges.settings import BridgeKind, BridgeSettings

__all__ = ["with_owt_config"]

log = structlog.get_logger(__name__)

_Port = Annotated[int, Meta(ge=0, le=65535)]
_DEFAULT_PORTS: Final[dict[str, int]] = {"event": 7700, "media": 0}
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - where OWT's bridges listen
_SIOCGIFADDR: Final = 0x8915  # <linux/sockios.h>
_MAX_INTERFACE_NAME: Final = 15

S = TypeVar("S", bound=Struct)


class _Agent(Struct, rename="camel"):
    """How many processes OWT starts: here it is one, whatever this says."""

    max_processes: int = 1
    prerun_processes: int = 1


class _Cluster(Struct):
    name: Annotated[str, Meta(min_length=1)] = "owt-cluster"
    report_load_interval: Annotated[float, Meta(gt=0)] = 1000
    """Milliseconds."""
    max_load: Annotated[float, Meta(gt=0, le=1)] = 0.85
    join_retry: int = 60
    """Has no meaning here: joining is tried for ever."""
    network_max_scale: float = 1000
    """Has no meaning here, and not in OWT's bridges: the load is the processors'."""


class _Capacity(Struct):
    isps: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()


class _Rabbit(Struct):
    """What OWT hands to its AMQP library, so the file may have credentials, a virtual host and TLS, too."""

    host: str = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535)] = 5672
    username: str = ""
    password: str = ""
    vhost: str = "/"
    protocol: Literal["amqp", "amqps"] = "amqp"


class _Internal(Struct):
    ip_address: str = ""
    network_interface: str = ""
    minport: _Port = 0
    maxport: _Port = 0


class _Bridge(Struct, rename={"keystore_path": "keystorePath", "network_interface": "networkInterface"}):
    keystore_path: str = ""
    ip_address: str = ""
    hostname: str = ""
    network_interface: str = ""
    port: _Port | None = None


class _File(Struct):
    agent: _Agent = msgspec.field(default_factory=_Agent)
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)
    capacity: _Capacity = msgspec.field(default_factory=_Capacity)
    rabbit: _Rabbit = msgspec.field(default_factory=_Rabbit)
    internal: _Internal = msgspec.field(default_factory=_Internal)
    bridge: _Bridge = msgspec.field(default_factory=_Bridge)


def with_owt_config(
    settings: BridgeSettings,
    file: Path,
    *,
    environ: Mapping[str, str],
    address_of: Callable[[str], str] | None = None,
) -> BridgeSettings:
    """Return `settings` completed by an `agent.toml`; unknown keys are logged and passed over.

    `settings.kinds` must name the one bridge that the file is for. An address that begins with `$` names a
    variable in `environ`; without one, `address_of` says which this machine has on a network interface (`""`:
    the one that its default route uses). Raises ConfigError, which names the key.
    """
    if len(settings.kinds) != 1:
        raise ConfigError(f"{file} is the file of one bridge: say which, --kinds event or --kinds media")
    values = read_toml(file)
    for key in _unknown(values, _File):
        log.warning("owt_config.unknown_key", file=str(file), key=key)
    try:
        read = msgspec.convert(values, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {error}") from None
    told = _translate(settings.kinds[0], read, file, environ, address_of or _address_of)
    certificate = settings.quic.certificate
    keystore = file.parent / read.bridge.keystore_path
    if read.bridge.keystore_path and not certificate.file:
        if certificate.password and keystore.is_file():
            told["quic"] = {"certificate": {"file": str(keystore)}}
        else:
            log.warning(
                "owt_config.certificate_made", file=str(file), reason="no keystore file, or no password"
            )
    return _complete(settings, type(settings)(), told)


def _translate(
    kind: BridgeKind,
    read: _File,
    file: Path,
    environ: Mapping[str, str],
    address_of: Callable[[str], str],
) -> dict[str, Any]:
    """Return what the file says, in our settings' names."""
    bridge, internal = read.bridge, read.internal
    port = _DEFAULT_PORTS[kind] if bridge.port is None else bridge.port
    named = _expand(bridge.hostname, file, environ) or _expand(bridge.ip_address, file, environ)
    return {
        "node_carrier": "amqp",
        "host": _EVERYWHERE,
        "advertised_host": named or address_of(bridge.network_interface),
        f"{kind}_port": port,
        "amqp": {
            "url": _url(read.rabbit),
            "username": read.rabbit.username,
            "password": read.rabbit.password,
            "manager": read.cluster.name,
            "max_load": read.cluster.max_load,
            "report_load_interval": read.cluster.report_load_interval / 1000,
            "isps": read.capacity.isps,
            "regions": read.capacity.regions,
        },
        "media": {
            "internal_host": _expand(internal.ip_address, file, environ)
            or address_of(internal.network_interface),
            "internal_min_port": internal.minport,
            "internal_max_port": internal.maxport,
        },
    }


def _url(rabbit: _Rabbit) -> str:
    host = f"[{rabbit.host}]" if ":" in rabbit.host else rabbit.host
    path = "" if rabbit.vhost == "/" else f"/{quote(rabbit.vhost, safe='')}"
    return f"{rabbit.protocol}://{host}:{rabbit.port}{path}"


def _expand(value: str, file: Path, environ: Mapping[str, str]) -> str:
    if not value.startswith("$"):
        return value
    try:
        return environ[value[1:]]
    except KeyError:
        raise ConfigError(f"{file}: the environment has no {value[1:]}") from None


def _complete(settings: S, defaults: Struct, told: Mapping[str, Any]) -> S:
    """Return `settings` with what was told in the place of what is at its default."""
    changes: dict[str, Any] = {}
    for name, value in told.items():
        own, default = getattr(settings, name), getattr(defaults, name)
        if isinstance(value, dict):
            changes[name] = _complete(own, default, value)
        elif own == default:
            changes[name] = value
    return structs.replace(settings, **changes)


def _unknown(values: Mapping[str, Any], spec: type[Struct], prefix: str = "") -> Iterator[str]:
    """Yield the keys that the file has and the format has not, with their tables."""
    known = {field.encode_name: field for field in structs.fields(spec)}
    for key, value in values.items():
        if key not in known:
            yield f"{prefix}{key}"
            continue
        inner = known[key].type
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, Struct):
            yield from _unknown(value, inner, f"{prefix}{key}.")


def _address_of(interface: str) -> str:
    """Return this machine's IPv4 address on an interface, or on the way to everybody else.

    Raises ConfigError when there is no such interface, or it has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if not interface:
            try:
                probe.connect(("192.0.2.1", 9))  # RFC 5737; UDP, so nothing is sent
            except OSError:
                return "127.0.0.1"
            return str(probe.getsockname()[0])
        request = struct.pack("256s", interface.encode()[:_MAX_INTERFACE_NAME])
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError as error:
            raise ConfigError(f"network interface {interface}: {error.strerror}") from None
        return socket.inet_ntoa(answer[20:24])
