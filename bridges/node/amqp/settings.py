"""Where the broker is, and the limits and timing of what is said there: the table `[bridge.amqp]`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from causeway.errors import ConfigError

__all__ = ["AmqpSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=600)]


class AmqpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The RabbitMQ broker of an OWT cluster, with `node_carrier = "amqp"`."""

    url: str = "amqp://127.0.0.1:5672"
    """`amqp://host:port/vhost`, or `amqps://…` for TLS; without a path, the broker's virtual host `/`."""
    username: str = ""
    """Whom to be at the broker; empty: what stands in `url`, or `guest`."""
    password: str = ""
    """The user's password; better given by the environment, CAUSEWAY_BRIDGE__AMQP__PASSWORD."""
    ca_file: str = ""
    """PEM file with the certificate authorities that the broker's certificate may come from; empty: those of
    the operating system."""
    cert_file: str = ""
    """PEM file with the certificate, and what signed it, that the broker is shown; empty: none."""
    key_file: str = ""
    """PEM file with the key of `cert_file`; empty: it is in the same file."""
    manager: Annotated[str, Meta(min_length=1, max_length=255)] = "owt-cluster"
    """Name of the cluster manager's queue: `[manager] name` of cluster_manager.toml, `[cluster] name` of
    every agent.toml."""
    max_load: Annotated[float, Meta(gt=0, le=1)] = 0.85
    """Load, from 0 to 1, beyond which the cluster manager shall give this worker nothing new."""
    isps: tuple[str, ...] = ()
    """Providers that this worker is for, as the cluster manager is told; none: all."""
    regions: tuple[str, ...] = ()
    """Regions that this worker prefers, as the cluster manager is told; none: all."""
    keep_alive_interval: _Seconds = 0.8
    """Seconds between two signs of life; OWT's cluster manager drops a worker after 3 without."""
    report_load_interval: _Seconds = 1.0
    """Seconds between two looks at the load, which is reported when it has changed."""
    connect_timeout: _Seconds = 5.0
    """Seconds that connecting to the broker may take, and likewise declaring what is needed there."""
    heartbeat: Annotated[int, Meta(ge=1, le=600)] = 2
    """Seconds between heartbeats of the connection; a broker that misses three of them counts as lost."""
    retry_base: _Seconds = 0.1
    """Seconds that the first delay before reconnecting may take; doubled with every failure."""
    retry_cap: _Seconds = 2.0
    """Seconds that the delay before reconnecting grows to at most."""
    hold: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """Seconds that a call waits for the broker to come back; what other clusters say waits meanwhile."""
    settle: Annotated[float, Meta(ge=0, le=600)] = 5.0
    """Seconds after a reconnection in which others may still be on their way back: until then a server that
    is not there counts as late, not as gone."""
    max_outstanding: Annotated[int, Meta(ge=1)] = 1024
    """Our calls that may wait for a reply at once."""
    max_concurrent: Annotated[int, Meta(ge=1, le=65_535)] = 256
    """Calls of the cluster that are served at once; the broker keeps further ones."""
    max_message_bytes: Annotated[int, Meta(ge=1024)] = 4 << 20
    """Bytes of the largest message that is read; larger ones are dropped."""

    def __repr__(self) -> str:  # without the password
        return f"AmqpSettings(broker={self.where!r}, manager={self.manager!r})"

    @property
    def where(self) -> str:
        """The URL without credentials, for logs and errors; raises ConfigError when it is no AMQP URL."""
        try:
            parts = urlsplit(self.url)
            number = parts.port
        except ValueError:
            parts, number = urlsplit(""), None
        if parts.scheme not in {"amqp", "amqps"} or not parts.hostname or number == 0:
            # Not repeated: whoever mistypes a URL may have a password in it.
            raise ConfigError("bridge.amqp.url is not an amqp:// or amqps:// URL")
        port = "" if number is None else f":{number}"
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"{parts.scheme}://{host}{port}{parts.path}"
