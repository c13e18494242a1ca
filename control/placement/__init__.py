"""Which cluster shall a client go to: pure filters, scorers, policies, explainable decisions."""

from __future__ import annotations

from control.placement.decide import Board, decide
from control.placement.decision import Decision, Placed, Rejected, Scored, pack, sentence, unpack
from control.placement.facts import Candidate, Conference, Place, Wish, load_of
from control.placement.policy import (
    DEFAULT_POLICY,
    Policy,
    PolicySettings,
    Rules,
    load_rules,
    make_policies,
)

__all__ = [
    "DEFAULT_POLICY",
    "Board",
    "Candidate",
    "Conference",
    "Decision",
    "Place",
    "Placed",
    "Policy",
    "PolicySettings",
    "Rejected",
    "Rules",
    "Scored",
    "Wish",
    "decide",
    "load_of",
    "load_rules",
    "make_policies",
    "pack",
    "sentence",
    "unpack",
]
