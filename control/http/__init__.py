"""The edge: parse, authorise, call a service, answer. One file per consumer."""

from __future__ import annotations
