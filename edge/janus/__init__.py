"""Janus servers as clusters: a connector between their VideoRooms and everything else."""

from __future__ import annotations
