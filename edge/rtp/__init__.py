"""Tracks as RTP and RTCP over UDP (RFC 3550), into a cluster and out of it."""

from __future__ import annotations
