"""Credentials and encryption at rest."""

from __future__ import annotations
