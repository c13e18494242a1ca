"""A bridge process shown to people and machines on its own machine."""

from __future__ import annotations
