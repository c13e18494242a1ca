"""What is wrong with bytes that came as RTP, RTCP or SDP."""

from __future__ import annotations

from typing import ClassVar

from causeway.errors import CausewayError

__all__ = ["RtpError"]


class RtpError(CausewayError):
    """Bytes or text of a peer are not what they should be; whoever gets them passes them over and counts."""

    code: ClassVar[str] = "rtp-malformed"
