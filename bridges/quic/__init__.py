"""QUIC endpoints on aioquic: listen, dial, certificates. Knows nothing of what travels on the streams."""

from __future__ import annotations
