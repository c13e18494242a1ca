"""A small real conference cluster, and a laboratory of several regions on one machine."""

from __future__ import annotations
