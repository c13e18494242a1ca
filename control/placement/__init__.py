"""Which cluster shall a client go to: pure filters and scorers."""

from __future__ import annotations

from control.placement.policy import Candidate, Decision, choose

__all__ = ["Candidate", "Decision", "choose"]
