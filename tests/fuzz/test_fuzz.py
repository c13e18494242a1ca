"""Every input of the corpus, and some beside them, against the invariants."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import mutated
from tests.fuzz.seeds import CORPUS, corpus_of, name_of, seeds
from tests.fuzz.targets import TARGETS, chunks, stream_of


@pytest.mark.parametrize("target", TARGETS)
def test_the_invariant_holds_for_the_corpus(target: str) -> None:
    inputs = corpus_of(target)
    for data in inputs:
        TARGETS[target](data)
    missing = {name_of(data) for data in seeds()[target]} - {name_of(data) for data in inputs}
    assert not missing, "python -m tests.fuzz --seeds"


@pytest.mark.parametrize("target", TARGETS)
def test_the_invariant_holds_beside_the_corpus(target: str) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(target))
    def holds(data: bytes) -> None:
        TARGETS[target](data)

    holds()


def test_every_target_says_its_invariant_and_every_folder_has_a_target() -> None:
    for target in TARGETS.values():
        assert inspect.getdoc(target)
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    for folder in CORPUS.iterdir():
        for file in folder.iterdir():
            assert file.name == name_of(file.read_bytes())
            assert file.stat().st_size <= 8192


@given(st.binary(max_size=200))
def test_chunks_are_the_stream(data: bytes) -> None:
    assert b"".join(chunks(data)) == stream_of(data)
