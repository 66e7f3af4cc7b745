"""All parts of a running monitor, as those who compose, show and measure them see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.monitor import MonitorConfig
    from gateway.monitor.alerts.part import Alerts
    from gateway.monitor.arms.part import Arms
    from gateway.monitor.detect.part import Detection
    from gateway.monitor.panes.part import Panes
    from gateway.monitor.performance.part import Performance
    from gateway.monitor.pipeline import Pipeline
    from gateway.monitor.profile.catalog import ProfileCatalog
    from gateway.monitor.store.erasures import Erasures


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything here is used on the engine's thread alone.

    Attributes:
        config: as read.
        catalog: reference profiles.
        panes: sums over rows.
        detection: scores and alarms.
        arms: comparisons.
        performance: predictions and labels.
        pipeline: what came from whom, and when.
        alerts: who was told.
        erasures: who was erased.
    """

    config: MonitorConfig
    catalog: ProfileCatalog
    panes: Panes
    detection: Detection
    arms: Arms
    performance: Performance
    pipeline: Pipeline
    alerts: Alerts
    erasures: Erasures
