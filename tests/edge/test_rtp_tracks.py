"""The two ends of a track over RTP, in virtual time: loss, disorder, other sources, wishes, reports."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame
from edge.rtp import packet as rtp
from edge.rtp import rtcp
from edge.rtp.rtcp import Bye, FullIntraRequest, Nack, PictureLoss, ReceiverReport, Remb, SenderReport
from tests.edge.rtp_path import OPUS, VP8, Path, number_of, picture, sound

if TYPE_CHECKING:
    from edge.rtp.rtcp import Rtcp


def sent_by(path: Path, kind: type[Rtcp]) -> list[Rtcp]:
    return [packet for packet in path.told if isinstance(packet, kind)]


def test_everything_arrives_unchanged_on_a_good_path() -> None:
    path = Path()
    path.story(40)
    assert [number_of(frame) for frame in path.frames] == list(range(40))
    assert path.frames[0] == picture(0, key=True, timestamp=path.frames[0].timestamp)
    assert [frame.key_frame for frame in path.frames] == [True] + [False] * 39
    stamps = [frame.timestamp for frame in path.frames]
    assert stamps[0] == 2**32 - 9, "it begins where it was told to"
    assert {(after - before) % 2**32 for before, after in itertools.pairwise(stamps)} == {3000}
    assert path.sender.repeated == 0
    assert not sent_by(path, Nack)
    assert path.sender.heard is not None
    assert (path.sender.heard.lost, path.sender.heard.fraction_lost) == (0, 0)
    assert path.sender.heard.last_report != 0
    assert path.sender.heard.since_last_report < 3 * 65_536


@pytest.mark.parametrize("as_packet", [False, True])
def test_sound_arrives_also_when_the_cluster_has_it_as_whole_packets(*, as_packet: bool) -> None:
    path = Path(OPUS)
    for number in range(20):
        path.send(sound(number, as_packet=as_packet))
        path.run(0.02)
    path.run(1)
    assert [frame.payload for frame in path.frames] == [sound(number).payload for number in range(20)]
    assert {(frame.audio.samples, frame.audio.channels) for frame in path.frames} == {(960, 2)}
    assert not sent_by(path, PictureLoss)


@given(st.integers(0, 2**32), st.floats(0, 0.1), st.floats(0, 0.03))
def test_what_is_lost_is_asked_for_and_comes(seed: int, loss: float, jitter: float) -> None:
    rng = random.Random(seed)
    path = Path(lose=lambda _data: rng.random() < loss, delay=lambda: 0.01 + rng.random() * jitter)
    path.story(60)
    numbers = [number_of(frame) for frame in path.frames]
    # With an eighth of a second for repeats hardly anything is given up; then a key frame goes on.
    assert numbers == sorted(set(numbers))
    assert path.receiver.given_up <= 10
    assert numbers[-1] >= 40
    _never_undecodable(path.frames)


@given(st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_on_a_terrible_path_nothing_undecodable_is_handed_on(seed: int, loss: float) -> None:
    rng = random.Random(seed)
    path = Path(lose=lambda _data: rng.random() < loss, delay=lambda: rng.random() * 0.3)
    path.story(40)
    _never_undecodable(path.frames)
    assert len(sent_by(path, PictureLoss)) <= 40 / 30 / 0.5 + 6


def _never_undecodable(frames: list[MediaFrame]) -> None:
    before = None
    for frame in frames:
        assert frame.key_frame or number_of(frame) == before, "a picture whose reference is missing"
        before = number_of(frame) + 1


def test_repeats_are_not_asked_for_at_once_nor_without_end() -> None:
    lost = 0

    def lose(data: bytes) -> bool:
        nonlocal lost
        if not rtp.is_rtcp(data) and rtp.decode(data).sequence == 65_510:
            lost += 1
            return True
        return False

    path = Path(lose=lose, nack_interval=0.05, patience=0.25)
    path.story(30)
    # The packet itself, and its repeats: every 50 ms for a quarter of a second, a round trip of 40 ms later.
    assert 3 <= lost <= 6
    assert path.receiver.given_up == 1
    assert path.wishes >= 1
    assert number_of(path.frames[-1]) == 29


def test_requests_and_repeats_have_a_budget() -> None:
    path = Path(max_nacks_per_second=20, max_repeats_per_second=10)
    path.send(picture(0, key=True))
    path.run(0.1)
    sequences = tuple(range(65_000, 65_536))
    big = picture(1, size=200_000)
    again: list[bytes] = []
    path.sender.send(path.now, big)
    again += path.sender.hear(path.now + 0.1, Nack(sender=8, media=7, sequences=sequences))[0]
    again += path.sender.hear(path.now + 0.1, Nack(sender=8, media=7, sequences=sequences))[0]
    assert len(again) == 10
    path.send(picture(2))
    path.run(0.2)
    asked = sum(len(packet.sequences) for packet in sent_by(path, Nack) if isinstance(packet, Nack))
    assert 0 < asked <= 20 + 20 * 0.3


def test_what_is_asked_for_too_late_or_of_somebody_else_is_not_sent_again() -> None:
    path = Path()
    (data, *_) = path.sender.send(path.now, picture(0, key=True))
    sequences = (rtp.decode(data).sequence,)
    assert path.sender.hear(path.now + 0.1, Nack(sender=8, media=99, sequences=sequences)) == ([], False)
    assert path.sender.hear(path.now + 0.1, Nack(sender=8, media=7, sequences=sequences)) == ([data], False)
    assert path.sender.hear(path.now + 5.0, Nack(sender=8, media=7, sequences=sequences)) == ([], False)


@pytest.mark.parametrize(
    "wish",
    [
        PictureLoss(sender=8, media=7),
        PictureLoss(sender=8, media=0),
        FullIntraRequest(sender=8, media=(3, 7)),
    ],
)
def test_wishes_for_key_frames_are_heard_but_not_too_often(wish: Rtcp) -> None:
    path = Path()
    heard = [path.sender.hear(100 + 0.1 * step, wish)[1] for step in range(10)]
    assert heard == [True, False, False, False, False, True, False, False, False, False]
    assert not Path(OPUS).sender.hear(100, wish)[1]
    assert not path.sender.hear(200, PictureLoss(sender=8, media=12345))[1]


def test_the_cluster_s_wish_for_a_key_frame_goes_to_the_sender() -> None:
    path = Path()
    path.story(20)
    assert path.wishes == 0
    path.receiver.want_key_frame()
    path.run(0.1)
    assert path.wishes == 1
    path.receiver.want_key_frame()
    path.receiver.limit(path.now, 500_000)
    path.run(0.3)
    assert path.wishes == 1
    path.run(0.7)
    assert path.wishes == 2
    path.run(60)
    told = len(path.told)
    path.run(60)
    assert len(path.told) == told, "whoever is silent is told nothing for ever"
    (remb, *_) = sent_by(path, Remb)
    assert remb == Remb(sender=8, bitrate=500_000, media=(7,))


def test_timestamps_go_on_when_another_source_sends() -> None:
    path = Path()
    path.send(picture(0, key=True))
    path.run(0.1)
    path.send(picture(1, timestamp=9000))
    path.run(0.5)
    path.send(picture(2, key=True, timestamp=4_000_000_000))  # it jumps: half a second has passed
    path.run(0.1)
    path.sender.restart()
    path.send(picture(3, key=True, timestamp=4_000_000_001))  # it does not, but it was said
    path.run(0.1)
    path.send(picture(4, timestamp=4_000_003_001))
    path.run(0.1)
    stamps = [(frame.timestamp - 2**32 + 9) % 2**32 for frame in path.frames]
    assert stamps == [0, 9000, 9000 + 45_000, 54_000 + 9000, 66_000]


def test_nothing_is_sent_before_a_key_frame_nor_of_another_codec() -> None:
    path = Path()
    path.send(picture(0))
    path.send(sound(1))
    assert (path.sender.packets, path.sender.malformed) == (0, 1)
    path.send(picture(2, key=True))
    assert path.sender.packets > 0
    info = AudioInfo(samples=960, sample_rate=48_000, channels=2, is_rtp_packet=True)
    broken = MediaFrame.build(FrameFormat.OPUS, timestamp=0, info=info, payload=b"no packet")
    other = Path(OPUS)
    other.send(broken)
    assert (other.sender.packets, other.sender.malformed) == (0, 1)


def _packet(ssrc: int, sequence: int, *, payload_type: int = 96, key: bool = True) -> rtp.RtpPacket:
    frame = picture(sequence, key=key, size=400)
    return rtp.RtpPacket(
        payload_type=payload_type,
        sequence=sequence,
        timestamp=sequence * 3000,
        ssrc=ssrc,
        marker=True,
        payload=b"\x10" + frame.payload,
    )


def test_another_source_takes_over_when_the_first_is_silent_or_says_goodbye() -> None:
    receiver = Path().receiver
    assert [number_of(frame) for frame in receiver.receive(10.0, _packet(1, 5))] == [5]
    assert not receiver.accepts(10.5, _packet(2, 900))
    assert not receiver.accepts(10.5, _packet(1, 6, payload_type=97))
    assert receiver.accepts(11.1, _packet(2, 900))
    assert [number_of(frame) for frame in receiver.receive(11.1, _packet(2, 900))] == [900]
    assert receiver.ssrc == 2
    receiver.hear(11.2, Bye(ssrcs=(1, 2)))
    assert receiver.due() is None
    assert receiver.accepts(11.2, _packet(3, 7))
    assert [number_of(frame) for frame in receiver.receive(11.2, _packet(3, 7))] == [7]


def test_a_sender_that_counts_anew_is_followed() -> None:
    receiver = Path().receiver
    for sequence in (100, 101):
        receiver.receive(10.0, _packet(1, sequence))
    assert receiver.receive(10.1, _packet(1, 30_000)) == [], "one stray packet is none"
    assert [number_of(frame) for frame in receiver.receive(10.2, _packet(1, 102))] == [102]
    assert receiver.receive(10.3, _packet(1, 40_000)) == []
    assert [number_of(frame) for frame in receiver.receive(10.4, _packet(1, 40_001))] == [40_001]


def test_what_is_reported_is_what_happened() -> None:
    path = Path(lose=lambda data: not rtp.is_rtcp(data) and rtp.decode(data).sequence % 4 == 3, patience=0.02)
    for number in range(60):
        path.send(picture(number, key=True, size=300))
        path.run(1 / 30)
    path.run(1.0)
    heard = path.sender.heard
    assert heard is not None
    assert heard.ssrc == 7
    assert heard.lost == pytest.approx(15, abs=1)
    reports = [
        one.blocks[0]
        for one in sent_by(path, ReceiverReport)
        if isinstance(one, ReceiverReport) and one.blocks
    ]
    assert max(block.fraction_lost for block in reports) == pytest.approx(64, abs=8)


def test_a_sender_s_report_says_the_same_moment_twice() -> None:
    path = Path()
    for number in range(90):
        path.now = 100 + number / 30
        path.sender.send(path.now, picture(number, key=number == 0))
    report, description = path.sender.report(path.now, 1_700_000_000.25)
    assert isinstance(report, SenderReport)
    assert report.ntp == (1_700_000_000 + 2_208_988_800) << 32 | 1 << 30
    assert report.timestamp == (2**32 - 9 + 89 * 3000) % 2**32
    assert report.packets == path.sender.packets
    assert isinstance(description, rtcp.SourceDescription)
    assert path.sender.report(path.now + 0.5, 1_700_000_000.75) == []
    assert path.sender.goodbye()[-1] == Bye(ssrcs=(7,))
    assert Path().sender.report(100, 0) == []


def test_a_track_with_a_source_takes_no_other() -> None:
    receiver = Path(VP8).receiver
    assert receiver.accepts(1.0, _packet(1, 1))
    named = type(receiver)(
        type(VP8)(codec=VP8.codec, payload_type=96, ssrc=9), ssrc=8, settings=receiver._settings
    )
    assert not named.accepts(1.0, _packet(1, 1))
    assert named.accepts(1.0, _packet(9, 1))


def layered(number: int, *, key: bool) -> rtp.RtpPacket:
    """Return a picture of about 2,500 bytes in one packet; every second one is of temporal layer 1."""
    temporal = 0 if key else number % 2
    descriptor = bytes((0x90, 0x20, temporal << 6))
    return rtp.RtpPacket(
        payload_type=96,
        sequence=number,
        timestamp=number * 3000,
        ssrc=1,
        marker=True,
        payload=descriptor + picture(number, key=key, size=2500).payload,
    )


def test_when_less_is_wanted_the_upper_layers_are_left_out_until_there_is_room_and_a_key_frame() -> None:
    receiver = Path().receiver
    entered: list[int] = []
    keys = {0, 130, 290}
    now = 10.0
    for number in range(330):
        now += 1 / 30  # 30 pictures of 2,500 bytes a second: 600 kbit/s, half of them in layer 1
        if 60 <= number < 120 and number % 10 == 0:
            receiver.limit(now, 400_000)
        frames = receiver.receive(now, layered(number, key=number in keys))
        entered += [number_of(frame) for frame in frames]

    def in_layers(first: int, last: int) -> tuple[int, int]:
        those = [one for one in entered if first <= one < last]
        return len([one for one in those if one % 2 == 0]), len([one for one in those if one % 2])

    assert in_layers(0, 60) == (30, 30)
    assert in_layers(62, 290) == (114, 0), "the key frame at 130 came while less was still wanted"
    assert in_layers(290, 330) == (20, 20)
    assert receiver.left_out == 330 - len(entered)


def test_the_base_layer_enters_whatever_is_wanted() -> None:
    receiver = Path().receiver
    for number in range(60):
        receiver.limit(10 + number / 30, 1000)
        frames = receiver.receive(10 + number / 30, layered(number, key=number == 0))
        assert len(frames) == 1 or number % 2
    assert 0 < receiver.left_out <= 30
