"""Agents deployed per region: they carry conference events and media between clusters over QUIC."""

from __future__ import annotations
