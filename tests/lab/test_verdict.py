from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.launcher.verdict import FrameLedger, Mark


def marks(*numbers: int, start: int = 1000) -> list[Mark]:
    return [Mark(number, (start + number * 3000) % (1 << 32)) for number in numbers]


def test_what_was_sent_and_decoded_is_good() -> None:
    ledger = FrameLedger()
    ledger.expect("us-east")
    ledger.sent(marks(0, 1, 2, 3))
    ledger.decoded("us-east", marks(1, 3))
    verdict = ledger.judge()
    assert verdict.good
    assert verdict.matched == 2


def test_the_subscribers_report_may_come_first() -> None:
    ledger = FrameLedger()
    ledger.decoded("us-east", marks(0, 1))
    assert ledger.tallies["us-east"].matched == 0
    ledger.sent(marks(0))
    assert ledger.tallies["us-east"].matched == 1
    ledger.sent(marks(1, 2))
    assert ledger.judge().good
    assert ledger.judge().matched == 2


def test_what_the_publisher_has_not_reported_yet_is_left_open() -> None:
    ledger = FrameLedger()
    ledger.sent(marks(0, 1))
    ledger.decoded("us-east", marks(1, 2))
    assert ledger.judge().good
    assert ledger.judge().matched == 1


def test_a_number_with_another_frames_timestamp_is_a_stranger() -> None:
    ledger = FrameLedger()
    ledger.sent(marks(0, 1, 2))
    ledger.decoded("us-east", [*marks(0), Mark(2, marks(1)[0].timestamp)])
    verdict = ledger.judge()
    assert not verdict.good
    assert verdict.reason == (
        "us-east decoded 1 pictures that were never sent, the first with number 2 at RTP time 4000"
    )


def test_a_skipped_report_turns_waiting_pictures_into_strangers() -> None:
    ledger = FrameLedger()
    ledger.decoded("us-east", marks(1))
    ledger.sent(marks(0, 2))
    assert ledger.tallies["us-east"].strangers == 1


def test_every_expected_subscriber_must_have_decoded() -> None:
    ledger = FrameLedger()
    ledger.expect("us-east")
    ledger.expect("ap-south")
    ledger.sent(marks(0))
    ledger.decoded("us-east", marks(0))
    assert ledger.judge().reason == "ap-south decoded no picture"
    assert not ledger.judge().good


def test_silence_is_not_good() -> None:
    assert FrameLedger().judge().reason == "nobody was asked to decode anything"
    ledger = FrameLedger()
    ledger.expect("us-east")
    assert ledger.judge().reason == "nothing was published"


def test_the_clock_may_wrap() -> None:
    ledger = FrameLedger()
    start = (1 << 32) - 4000
    ledger.sent(marks(0, 1, start=start))
    ledger.decoded("us-east", marks(1, 2, start=start))
    assert ledger.tallies["us-east"].matched == 1
    ledger.sent(marks(2, start=start))
    assert ledger.tallies["us-east"].matched == 2


def test_what_a_killed_publisher_could_not_report_counts_for_nothing() -> None:
    ledger = FrameLedger()
    ledger.sent(marks(0, 1))
    ledger.decoded("us-east", marks(1, 2, 3))
    ledger.interrupted()
    ledger.sent(marks(10, 11))
    ledger.decoded("us-east", marks(4, 10))
    assert ledger.judge().good
    assert ledger.judge().matched == 2
    ledger.decoded("us-east", [Mark(99, marks(11)[0].timestamp)])
    assert not ledger.judge().good


def test_memory_is_bounded() -> None:
    ledger = FrameLedger(window=10, waiting=5)
    ledger.sent(marks(*range(100)))
    ledger.decoded("us-east", marks(*range(100, 120)))
    tally = ledger.tallies["us-east"]
    assert len(ledger._sent) == 10
    assert len(tally.waiting) == 5
    assert tally.strangers == 15


@given(st.lists(st.tuples(st.booleans(), st.integers(min_value=1, max_value=5)), max_size=40), st.data())
def test_any_interleaving_of_honest_reports_ends_good(
    turns: list[tuple[bool, int]], data: st.DataObject
) -> None:
    ledger = FrameLedger()
    ledger.expect("us-east")
    total = sum(count for _, count in turns) + 1
    numbers = list(range(total))
    decoded = sorted(data.draw(st.sets(st.sampled_from(numbers), min_size=1)))
    sent_up_to = decoded_up_to = 0
    for publisher, count in turns:
        if publisher:
            ledger.sent(marks(*numbers[sent_up_to : sent_up_to + count]))
            sent_up_to = min(total, sent_up_to + count)
        else:
            ledger.decoded("us-east", marks(*decoded[decoded_up_to : decoded_up_to + count]))
            decoded_up_to = min(len(decoded), decoded_up_to + count)
    ledger.sent(marks(*numbers[sent_up_to:]))
    ledger.decoded("us-east", marks(*decoded[decoded_up_to:]))
    verdict = ledger.judge()
    assert verdict.good
    assert verdict.matched == len(decoded)
