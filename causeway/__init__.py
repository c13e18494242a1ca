"""Causeway: one conference, many regions.

This package holds what carries the product's name: the command line, the client library, and the
small ground that the central service (`control`) and the regional agents (`bridges`) share. The
ground must know neither of them.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
