"""Traffic in which nothing drifts: a fraction of `loadtests.drift_budget`."""

from loadtests.drift_budget import Traffic, simulate


def test_quiet_traffic_raises_nothing_and_finds_no_more_than_the_level_says() -> None:
    """Five hours: no alarm, and findings as rare as their level (seeded; 5 have a chance below 1e-3)."""
    result = simulate(Traffic(rows=100, numbers=4), 300)
    assert (result.pages, result.tickets) == (0, 0)
    assert sum(s.families for s in result.spent) > 350
    assert sum(s.rejected for s in result.spent) < 5


def test_what_differs_by_the_hour_in_the_reference_is_no_drift() -> None:
    """The mean swings by a deviation within a day, as it did in the two weeks that the reference is of."""
    result = simulate(Traffic(rows=150, numbers=2, season=1.0), 300)
    assert (result.pages, result.tickets) == (0, 0)
