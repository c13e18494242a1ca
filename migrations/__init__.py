"""Alembic migrations of the registry: only forward, and the previous release must run on their result.

`versions/<number>_<what>.py`, numbered without gaps; `causeway db upgrade` runs them. A migration spells its
SQL out and never imports control.registry.tables, which moves on. Steps that may rewrite or lock a big table
are split so that each holds its lock for moments: whoever waits longer than the lock timeout is rolled back.
"""

from __future__ import annotations
