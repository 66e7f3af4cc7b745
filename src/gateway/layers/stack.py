"""Puts the request stack together: which layers, in which order, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.layers.admission import AdmissionLayer, AdmissionLimits
from gateway.layers.deadline import DeadlineLayer
from gateway.layers.drain import DrainLayer
from gateway.layers.telemetry import TelemetryLayer

if TYPE_CHECKING:
    from gateway.core.interfaces import InferenceService
    from gateway.layers.telemetry import RequestTelemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What the layers are told.

    Attributes:
        admission: limits over all requests.
        max_deadline_s: longest time in seconds that a request may wait to be started; None: any.
    """

    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    max_deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class RequestStack:
    """The stack, and the layers that others talk to.

    Attributes:
        service: the top: what front ends call.
        drain: told at shutdown.
        admission: asked for what is in flight, and waited on at shutdown.
    """

    service: InferenceService
    drain: DrainLayer
    admission: AdmissionLayer


def build_stack(inner: InferenceService, options: StackOptions, telemetry: RequestTelemetry) -> RequestStack:
    """Build the stack on top of `inner`, the router; read it bottom-up, as requests pass top-down."""
    # Innermost, since it may rewrite the deadline: only for a request that is going to be queued.
    deadline = DeadlineLayer(inner, telemetry.clock, options.max_deadline_s)
    # After whoever may be refused for who they are, so that strangers cannot use the budget up; before
    # anything that keeps the request's bytes alive.
    admission = AdmissionLayer(deadline, options.admission)
    # Authentication belongs here: a stranger learns that the server is going down, nothing more, and is
    # never charged. Until it exists every request carries the anonymous principal it was made with.
    # Before anything is charged or asked: during shutdown a refusal must be as cheap as can be.
    drain = DrainLayer(admission)
    # Outermost, so that refusals by every layer are counted too, and completion reaches it last, when the
    # others have let go.
    return RequestStack(TelemetryLayer(drain, telemetry), drain, admission)
