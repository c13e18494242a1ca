"""Bad paths as people write them: `delay=50 jitter=5 loss=1 rate=2:100`. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tests.impairment.core import Bottleneck, Bursts, Hole, Profile, Rebinding

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HELP", "SpecError", "parse_profile", "parse_rebinding"]

HELP: Final = """\
A path is described by words, separated by spaces or commas:

  delay=MS                  what every datagram takes
  jitter=MS                 up to so much longer, each for itself: reorders
  in-order                  jitter does not reorder
  loss=%                    lost at random
  bursts=%[:N[:%]]          lost in runs of N (5) on average, of which so many (100 %) are lost
  reorder=%[:MS]            held back for that time (10), so that others overtake
  duplicate=%               arrives twice
  mtu=BYTES                 larger UDP payloads vanish
  rate=MBIT[:MS[:BYTES]]    bottleneck of so many Mbit/s; its queue holds so much time (100);
                            so many bytes may pass at once after a pause (0)
  hole=S:S[:S]              nothing passes: from when, for how long, again every so often

`hole` may be said several times."""


class SpecError(ValueError):
    """It cannot be understood; the message says which word."""


def parse_profile(text: str, base: Profile = Profile()) -> Profile:  # noqa: B008 - immutable
    """Return `base` with what `text` says; holes are added. Raises SpecError."""
    profile = base
    for word in text.replace(",", " ").split():
        name, _, value = word.partition("=")
        meaning = _WORDS.get(name)
        if meaning is None:
            raise SpecError(f"{word!r}: no such word")
        try:
            changes = meaning(value)
            if "holes" in changes:
                changes["holes"] = (*profile.holes, *changes["holes"])
            profile = replace(profile, **changes)
        except ValueError as error:
            raise SpecError(f"{word!r}: {error}") from None
    return profile


def parse_rebinding(text: str) -> Rebinding:
    """Return what `S[:S]` says: every so many seconds, the first time at. Raises SpecError."""
    try:
        every, begin = _numbers(text, 1, None, None)
        return Rebinding(every=every, begin=begin)
    except ValueError as error:
        raise SpecError(f"{text!r}: {error}") from None


def _numbers(value: str, needed: int, *defaults: Any) -> list[Any]:
    """Return the numbers between colons, the missing ones from `defaults` (one for each that may be said)."""
    said = value.split(":")
    if not needed <= len(said) <= len(defaults):
        raise ValueError(f"{needed} to {len(defaults)} numbers are needed")
    return [float(each) for each in said] + list(defaults[len(said) :])


def _one(field: str, parts: float) -> Callable[[str], dict[str, Any]]:
    """Return the meaning of a word with one number, so many parts of which make the field's unit."""
    return lambda value: {field: float(value) / parts}


def _bursts(value: str) -> dict[str, Any]:
    share, length, density = _numbers(value, 1, None, 5.0, 100.0)
    return {"bursts": Bursts(share=share / 100, length=length, density=density / 100)}


def _reorder(value: str) -> dict[str, Any]:
    share, delay = _numbers(value, 1, None, 10.0)
    return {"reorder": share / 100, "reorder_delay": delay / 1000}


def _rate(value: str) -> dict[str, Any]:
    mbit, queue, burst = _numbers(value, 1, None, 100.0, 0.0)
    return {"bottleneck": Bottleneck(rate=mbit * 1e6, queue=queue / 1000, burst=int(burst))}


def _hole(value: str) -> dict[str, Any]:
    begin, length, every = _numbers(value, 2, None, None, None)
    return {"holes": (Hole(begin=begin, length=length, every=every),)}


def _in_order(value: str) -> dict[str, Any]:
    if value:
        raise ValueError("takes no value")
    return {"in_order": True}


_WORDS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "delay": _one("delay", 1000),
    "jitter": _one("jitter", 1000),
    "in-order": _in_order,
    "loss": _one("loss", 100),
    "bursts": _bursts,
    "reorder": _reorder,
    "duplicate": _one("duplicate", 100),
    "mtu": lambda value: {"mtu": int(value)},
    "rate": _rate,
    "hole": _hole,
}
