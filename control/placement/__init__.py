"""Which cluster shall a client go to: pure filters and scorers."""

from __future__ import annotations
