"""Our own wire's event bridge: between two Causeway bridges, relaying where it is told to.

Pure: log, picture, relay, exchange, conversation. They own no socket, no clock, no task; time is an argument,
in seconds of any clock that does not go back.
"""

from __future__ import annotations
