"""The controller's constants, each with what it trades against what. Not an operator's settings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tuning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Times in seconds, windows in packets of the largest size, shares from 0 to 1."""

    initial_window: int = 32
    """As Chromium's QUIC: a key frame of 30 kB fits."""
    floor: int = 4
    """The least window; sound must go on."""
    floor_rate: float = 125.0
    """What a cut because of losses leaves at least, in packets a second: a picture and sound go on,"""
    floor_after_loss: int = 10
    """and in packets, where a round trip is so long that it would be more. Ten on a short path would fill its
    queue by themselves."""

    # --- the delay target ---
    eagerness: float = 2.0
    """Packets of its own that a flow keeps in the bottleneck's queue when nobody else is there."""
    long_path: float = 0.1
    long_eagerness: float = 1.0
    long_queue: float = 0.005
    """So many more on a path twice as long as this, in parts on one in between: who hears late of a queue
    gives way for longer. As many as it sends in `long_queue` seconds if that is more."""
    noise: float = 0.004
    """Queueing below this is taken for jitter, scheduling and delayed acknowledgements."""
    punctual: float = 0.002
    """A timer that comes so late is in time."""
    base_memory: float = 10.0
    """For how long the smallest round trip counts as that of the empty path."""
    standing_memory: float = 0.04
    """The standing round trip is the smallest of the last half round trip, or of this if it is longer."""
    max_velocity: float = 32.0
    start_doubts: int = 8
    """So many measurements in a row, or those of a round trip, have to tell of a queue to end the fast start:
    fewer may be jitter."""
    start_exit: float = 0.6
    """What is left of the window when the fast start has filled the queue."""

    # --- what the application uses ---
    used_memory: float = 3.0
    """The window grows to twice what was in flight at once within this time, and not beyond."""
    used_factor: float = 2.0

    # --- pacing ---
    pacing_gain: float = 2.0
    """Times window over round trip: what a window allows is sent within half a round trip."""
    capacity_gain: float = 1.25
    """Times the capacity that trains of packets have shown."""
    burst: int = 6
    """Packets that may leave at once,"""
    burst_time: float = 0.002
    """or what leaves in this time if that is more: timers come no oftener than every millisecond."""

    # --- trains ---
    train_gap: float = 0.003
    """Packets closer than this belong to one train."""
    train_packets: int = 3
    train_bytes: int = 3000
    train_stretch: float = 1.3
    """A train is stretched if its acknowledgements span this times its sending, and `train_slack` more."""
    train_slack: float = 0.002
    train_memory: int = 11
    """Trains of which the median counts."""

    # --- rivals ---
    rival_queue: float = 0.014
    """A queue that never falls below this may be somebody else's;"""
    rival_stays: float = 0.016
    """one that stays above this while we send half, is;"""
    rival_few: float = 8.0
    rival_kept: float = 9.0
    rival_stays_most: float = 0.045
    """with fewer packets in flight than these, only if it is as long as so many packets take on the line, or
    longer than the last."""
    rival_halved: float = 0.05
    """A round trip that half the window has halved, give or take this, was our own doing."""
    rival_patience: float = 0.5
    """Seconds (or five round trips) for which it must not fall before that is tested."""
    rival_recheck: float = 3.0
    """Seconds (or twenty round trips) after which a flow that competes tests whether it still has to. A test
    takes one and a half, with half of what is sent else."""
    rival_step: float = 2.0
    """How much more eager a competing flow gets in a round without loss."""
    max_eagerness: float = 64.0

    # --- losses ---
    loss_sample: int = 50
    """Packets over which a share of losses is judged."""
    loss_cap: float = 0.15
    """More than this is no random loss: the window is cut by the share that was lost."""
    loss_fine: float = 0.08
    """Less than this lifts the bound that a cut has left. A line may lose as much at random,"""
    loss_deviations: float = 3.0
    """and of few packets more, by so many standard deviations,"""
    loss_queue: float = 0.045
    """where the queue is shorter than that, in seconds."""
    loss_hold: float = 2.0
    loss_hold_rounds: int = 10
    """Seconds and round trips for which a cut's bound is kept, whichever is longer."""
    capped_from: float = 0.7
    """The share of that bound from which on packets are spread more carefully:"""
    capped_gain: float = 1.15
    """the pacing gain there,"""
    capped_burst: int = 1
    """and the packets that may leave at once."""

    # --- holes ---
    hole_least_packets: int = 4
    hole_most_packets: int = 8
    """Further packets that a probe timeout lets out: as many as left in that time before, within these."""
    hole_timeouts: int = 2
    """So many in a row are a hole, not the end of a burst that was lost."""
    hole_exit: float = 0.7
    """What is left of the window after a hole."""
