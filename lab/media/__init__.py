"""Real encoded media for the laboratory: numbered pictures, VP8 and Opus both ways, their sources.

Only this package and lab.participant need PyAV and numpy (the extra `lab`).
"""

from __future__ import annotations
