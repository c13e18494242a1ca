"""Our own wire between two Causeway bridges, ALPN `causeway/1`: bytes to typed messages and back.

Sans-IO, like the rest of bridges.wire. docs/wire.md, chapter "Our wire", is this package in words.
"""

from __future__ import annotations
