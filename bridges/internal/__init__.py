"""Media between the agents of one cluster: OWT's internal TCP transport, both ends."""

from __future__ import annotations
