"""Media on our own wire: what one datagram carries, and what a frame is made of; bytes to types and back.

Sans-IO, like the rest of bridges.wire. The chapter "Media on our wire" of docs/wire.md is
this package in words.
"""

from __future__ import annotations
