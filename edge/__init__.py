"""Clusters that are made of other people's media servers, and of plain RTP."""

from __future__ import annotations
