"""The wire between bridges, and between the parts of a cluster: bytes to typed messages and back.

Sans-IO and free of the rest of Causeway: no socket, no clock, no task, no import from other packages of ours.
The format is OWT's; docs/wire.md describes it.
"""

from __future__ import annotations
