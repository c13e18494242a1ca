"""Inputs made of the corpus by Hypothesis: cut, joined, overwritten, repeated."""

from __future__ import annotations

import sys
import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tests.fuzz.seeds import corpus_of
from tests.fuzz.targets import TARGETS

__all__ = ["explore", "mutated"]

_BATCH = 2_000


def mutated(target: str) -> st.SearchStrategy[bytes]:
    """Return inputs near those of a target's corpus, and some that are far from them."""
    known = st.sampled_from(corpus_of(target))
    piece = st.one_of(
        known,
        st.builds(
            lambda data, a, b: data[min(a, b) : max(a, b)], known, st.integers(0, 400), st.integers(0, 400)
        ),
        st.binary(max_size=40),
    )
    edits = st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4), st.booleans()), max_size=6)
    return st.builds(_edit, st.lists(piece, min_size=1, max_size=4).map(b"".join), edits)


def _edit(data: bytes, edits: list[tuple[int, bytes, bool]]) -> bytes:
    """Write bytes into others: over what is there, or in between."""
    for at, new, over in edits:
        place = at % (len(data) + 1)
        data = data[:place] + new + data[place + (len(new) if over else 0) :]
    return data


def explore(target: str, seconds: int) -> bool:
    """Try mutated inputs for so long; return whether the invariant held, and print what broke it."""
    until = time.monotonic() + seconds

    @settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target))
    def holds(data: bytes) -> None:
        TARGETS[target](data)

    while time.monotonic() < until:
        try:
            holds()
        except (Exception, HypothesisException) as error:  # noqa: BLE001 - whatever it is, it is the finding
            print(f"{target}: {error!r}", *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)  # noqa: T201 - the finding
            return False
    return True
