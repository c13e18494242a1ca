"""How a broker is spoken to over TLS, from the settings."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from bridges.node.amqp.settings import AmqpSettings

__all__ = ["tls_context"]


def tls_context(settings: AmqpSettings) -> ssl.SSLContext:
    """Return how a broker is to be spoken to over TLS. Raises ConfigError for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"bridge.amqp.ca_file, cert_file, key_file: {error.strerror or 'not what they should be'}"
        ) from None
    return context
