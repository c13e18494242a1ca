"""Tables and queries, one file per aggregate; nothing else writes SQL."""

from __future__ import annotations
