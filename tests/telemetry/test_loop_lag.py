"""The loop lag monitor, on a clock whose timers can be late."""

import pytest

from gateway.telemetry.loop_lag import TICK_S, WINDOW_S, LoopLagMonitor
from gateway.telemetry.metrics import GatewayMetrics
from gateway.testing import VirtualClock
from tests.telemetry.builders import samples


class StallingClock(VirtualClock):
    """A VirtualClock whose loop can be busy: timers that fall due meanwhile run late."""

    def stall(self, seconds: float) -> None:
        until_s = self._now_s + seconds
        due = []
        while self._timers and self._timers[0][0] <= until_s:
            due.append(self._timers.pop(0)[2])
        self._now_s = until_s
        for timer in due:
            if not timer.cancelled:
                timer.callback()


@pytest.fixture
def clock() -> StallingClock:
    return StallingClock()


def test_punctual_timers_count_as_no_lag(clock: StallingClock) -> None:
    """An idle loop shows one observation per tick, all of no length."""
    metrics = GatewayMetrics(clock)
    with metrics.loop_lag:
        clock.advance(10 * TICK_S + TICK_S / 2)
    page = samples(metrics)
    assert page.value("gateway_loop_lag_seconds_count") == 10
    assert page.value("gateway_loop_lag_seconds_bucket", le="0.0005") == 10


def test_a_stall_is_seen_with_its_length(clock: StallingClock) -> None:
    """The lag is the time by which the timer came late."""
    metrics = GatewayMetrics(clock)
    with metrics.loop_lag:
        clock.stall(TICK_S + 0.2)
    page = samples(metrics)
    assert page.value("gateway_loop_lag_max_seconds") == pytest.approx(0.2)
    assert page.value("gateway_loop_lag_seconds_bucket", le="0.1") == 0
    assert page.value("gateway_loop_lag_seconds_bucket", le="0.25") == 1


def test_the_maximum_is_kept_for_one_to_two_windows(clock: StallingClock) -> None:
    """A stall is still seen a window later, by any number of scrapers, and forgotten after two."""
    with LoopLagMonitor(clock) as monitor:
        clock.stall(TICK_S + 0.2)
        clock.advance(WINDOW_S)
        assert monitor.max_s == pytest.approx(0.2)
        clock.advance(2 * WINDOW_S)
        assert monitor.max_s == pytest.approx(0.0, abs=1e-6)


def test_leaving_calls_the_timer_off(clock: StallingClock) -> None:
    """No timer is left behind."""
    with LoopLagMonitor(clock):
        assert clock.next_timer_s() is not None
    assert clock.next_timer_s() is None
