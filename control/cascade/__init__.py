"""Desired state of a conference: view and plan are pure, reconcile makes the world follow."""

from __future__ import annotations
