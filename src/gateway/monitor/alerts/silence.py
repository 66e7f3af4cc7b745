"""When nobody is told: windows that recur by the wall clock. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.cron import UNREADABLE, last_begin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.monitor_alerts import AboutSettings, SilenceSettings
    from gateway.monitor.values import Alarm


def silenced(windows: Sequence[SilenceSettings], alarm: Alarm, now_s: float) -> bool:
    """Whether a window that concerns the alarm is open."""
    return any(
        (not window.models or alarm.key.model in window.models)
        and (not window.kinds or alarm.kind in window.kinds)
        and _is_open(window, now_s)
        for window in windows
    )


def concerns(about: AboutSettings, alarm: Alarm) -> bool:
    """Whether a receiver asks for such alarms."""
    return (
        (not about.models or alarm.key.model in about.models)
        and (not about.kinds or alarm.kind in about.kinds)
        and (not about.severities or alarm.severity in about.severities)
    )


def _is_open(window: SilenceSettings, now_s: float) -> bool:
    """Whether it is open; one that cannot be read any more (a time zone was removed) silences nothing."""
    began_s = last_begin(window.cron, window.tz, int(now_s // 60))
    if began_s is None or began_s == UNREADABLE:
        return False
    return began_s <= now_s < began_s + window.lasts
