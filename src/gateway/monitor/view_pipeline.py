"""How the log gets here. Engine thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gateway.monitor.pages.shown import PipelineShown, ProducerShown
from gateway.monitor.pipeline import producers_by_name
from gateway.monitor.values import PANE_S

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.monitor.engine import EngineStatus
    from gateway.monitor.parts import Parts

MAX_PRODUCERS = 200


def pipeline(parts: Parts, status: EngineStatus, connected: Collection[str], now_s: float) -> PipelineShown:
    """Return producers and the course of the last hours.

    Args:
        parts: of the monitor.
        status: of its engine.
        connected: names of producers whose stream is open.
        now_s: wall clock.
    """
    course = parts.pipeline.course
    reasons = sorted({reason for minute in course for reason in minute.dropped})
    counters = {**status.counters, **parts.panes.counters(), **parts.performance.counts()}
    return PipelineShown(
        producers=[
            ProducerShown(
                producer=name,
                connected=name in connected,
                produced=known.produced,
                applied=known.applied,
                dropped=dict(known.dropped),
                credit_bytes=max(0, status.inbox_limit - status.inbox_bytes),
                lag_s=known.lag_s,
                last_s=known.last_s,
                epochs=max(1, known.epochs),
            )
            for name, known in producers_by_name(parts.pipeline.producers.items(), MAX_PRODUCERS)
        ],
        starts_s=[minute.start_s for minute in course],
        step_s=PANE_S,
        applied=[float(minute.applied) for minute in course],
        dropped={reason: [float(minute.dropped.get(reason, 0)) for minute in course] for reason in reasons},
        lag_s=[minute.lag_p99_s() for minute in course],
        checkpoint_s=now_s - status.checkpoint_age_s,
        state_bytes=float(parts.panes.counters().get("panes_bytes", np.nan)),
        state_limit_bytes=float(parts.config.panes.memory),
        counters={name: float(value) for name, value in sorted(counters.items()) if value},
    )
