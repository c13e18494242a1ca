"""What all tables share: their collection, with how constraints are named, and the type of times."""

from __future__ import annotations

from typing import Final

from sqlalchemy import DateTime, MetaData

__all__ = ["TIME", "metadata"]

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ix": "%(table_name)s_%(column_0_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

TIME: Final = DateTime(timezone=True)
"""Every time is the database's own clock."""
