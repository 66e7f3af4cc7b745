"""What a sink may say beside that it is away."""

from __future__ import annotations

from gateway.core.errors import GatewayError
from gateway.predlog.seams import SinkUnavailable


class NoCredit(SinkUnavailable):
    """The sink is there and has waited, up to a second, for room: the same frame is offered again at once.

    Nothing is reopened or sent again.
    """


class FrameRefused(GatewayError):
    """The sink will never take this frame; the lane counts its rows as `encode_error` and goes on."""
