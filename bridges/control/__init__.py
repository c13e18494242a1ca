"""The agent: what control wants of this process's bridges, done, and what they see, reported."""

from __future__ import annotations
