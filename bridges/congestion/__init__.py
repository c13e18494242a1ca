"""How fast a connection may send: windows, pacing and loss detection as pure objects.

Acknowledgements, losses and times go in, a window and a pacing rate come out. Knows neither the QUIC library
(bridges.quic.inside.recovery fits it in) nor what is sent. docs/congestion.md tells why it is as it is.
"""

from __future__ import annotations

from bridges.congestion.controller import Controller
from bridges.congestion.pacer import Pacer
from bridges.congestion.reordering import Reordering
from bridges.congestion.silence import Silence
from bridges.congestion.tail import Tail
from bridges.congestion.tuning import Tuning

__all__ = ["Controller", "Pacer", "Reordering", "Silence", "Tail", "Tuning"]
