from __future__ import annotations

import gc
import weakref

from bridges.pauses import shorten_pauses


class Node:
    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_not_looked_through_and_what_comes_is() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        shorten_pauses()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() > (700, 10, 10)
        gone = weakref.ref(Node())
        gc.collect()
        assert gone() is None
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
