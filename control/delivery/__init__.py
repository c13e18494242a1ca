"""What leaves the central service by itself: events of conferences, to streams and to webhooks."""

from __future__ import annotations
