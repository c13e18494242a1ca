"""The command line: `causeway …`. Stands above everything and imports it lazily, command by command."""

from __future__ import annotations
