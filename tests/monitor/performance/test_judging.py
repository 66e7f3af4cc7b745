"""When a metric is called worse, and when it is not; fairness between declared groups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.statistics import intervals, isotonic
from tests.monitor.performance.rows import KEY, START_S, Monitor, batch, category, profile, scores

if TYPE_CHECKING:
    from gateway.monitor.performance.results import Judgement

DAY_S = 86_400.0


def good(rows: int, accuracy: float, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Return calibrated scores and labels that agree with them this often."""
    random = np.random.default_rng(seed)
    score = np.where(random.random(rows) < 0.5, accuracy, 1 - accuracy)
    return score, ["yes" if t else "no" for t in random.random(rows) < score]


def judged(monitor: Monitor, now_s: float = START_S + DAY_S + 61) -> dict[tuple[str, str], Judgement]:
    """Return judgements by kind and subject."""
    return {(one.kind, one.subject): one for one in monitor.part.evaluate(now_s)}


@pytest.mark.parametrize(("accuracy", "breached"), [(0.9, False), (0.8, True)])
def test_a_loss_beyond_the_band_is_a_breach_and_a_smaller_one_is_none(
    accuracy: float, breached: bool
) -> None:
    """The whole interval must lie below the reference's band; what it was decided by is in the evidence."""
    monitor = Monitor(profile(performance={"accuracy": 0.9, "roc_auc": 0.9, "unheard_of": 1.0}))
    score, truth = good(3000, accuracy)
    monitor.apply(batch(scores(score)))
    monitor.truth(truth)
    found = judged(monitor)
    assert {subject for _, subject in found} == {"accuracy", "roc_auc"}
    one = found["performance", "accuracy"]
    assert (one.breached, one.recovered) == (breached, not breached)
    assert one.evidence["labelled"] == 3000
    assert one.low < one.value < one.high
    assert "accuracy of loan version 1" in one.summary


def test_errors_are_judged_from_above() -> None:
    """More log loss is worse; less of it is not."""
    for reference, breached in ((0.2, True), (0.9, False)):
        monitor = Monitor(profile(performance={"log_loss": reference}))
        score, truth = good(2000, 0.8)
        monitor.apply(batch(scores(score)))
        monitor.truth(truth)
        assert judged(monitor)["performance", "log_loss"].breached is breached


def test_the_newest_window_with_enough_labels_is_judged() -> None:
    """A newer window without labels is passed over; an unfinished one is not looked at."""
    monitor = Monitor(profile(performance={"accuracy": 0.9}))
    score, truth = good(600, 0.9)
    for day in range(3):
        monitor.apply(batch(scores(score[:200]), first=200 * day, at_s=START_S + day * DAY_S))
    monitor.truth(truth[:200])
    monitor.truth(truth[:50], first=200)
    monitor.truth(truth[:200], first=400)
    one = judged(monitor, START_S + 2.5 * DAY_S)["performance", "accuracy"]
    assert (one.start_s, one.end_s) == (START_S, START_S + DAY_S)
    assert judged(monitor, START_S + 3 * DAY_S + 61)["performance", "accuracy"].start_s == START_S + 2 * DAY_S


def test_nothing_is_judged_by_too_few_labels() -> None:
    """Without the least number of rows there is no judgement, so alarms neither rise nor end."""
    monitor = Monitor(profile(performance={"accuracy": 1.0}))
    monitor.apply(batch(scores(np.full(99, 0.9))))
    monitor.truth(["no"] * 99)
    assert judged(monitor) == {}


def test_a_small_window_seldom_breaches_although_nothing_changed() -> None:
    """Of 100 windows of 100 rows as good as the reference, hardly one is called worse."""
    breaches = 0
    for seed in range(100):
        monitor = Monitor(profile(performance={"accuracy": 0.9, "roc_auc": 0.9, "f1": 0.9, "brier": 0.09}))
        score, truth = good(100, 0.9, seed)
        monitor.apply(batch(scores(score)))
        monitor.truth(truth)
        breaches += any(one.breached for one in judged(monitor).values())
    assert breaches <= 1


def test_an_estimate_is_judged_without_any_label() -> None:
    """Scores that grow uncertain are expected to be wrong more often; realised ones are not made up."""
    calibration = np.array([[0.0, 1.0], [0.0, 1.0]])
    monitor = Monitor(profile(performance={"accuracy": 0.9, "f1": 0.9}, calibration=calibration))
    monitor.apply(batch(scores(good(2000, 0.7)[0])))
    found = judged(monitor)
    assert found["estimated_performance", "accuracy"].value == pytest.approx(0.7)
    assert found["estimated_performance", "accuracy"].breached
    assert ("performance", "accuracy") not in found


def test_estimates_cover_what_labels_say_later() -> None:
    """While scores are calibrated, the realised value lies in the 95 % band about as often as that says."""
    random = np.random.default_rng(3)
    held = dict.fromkeys(("accuracy", "f1", "roc_auc", "precision", "recall"), 0)
    for _ in range(60):
        monitor = Monitor(profile(calibration=np.array([[0.0, 1.0], [0.0, 1.0]])))
        score = random.beta(1, 1.5, 400)
        monitor.apply(batch(scores(score)))
        monitor.truth(["yes" if t else "no" for t in random.random(400) < score])
        realised = monitor.part.results(KEY, START_S, START_S + 60)
        estimated = monitor.part.estimated(KEY, START_S, START_S + 60)
        assert realised is not None
        assert estimated is not None
        for name in held:
            band = estimated.metrics[name]
            held[name] += band.low <= realised.metrics[name].value <= band.high
    assert {name: count / 60 for name, count in held.items() if count < 0.85 * 60} == {}


def test_without_a_calibration_nothing_is_estimated() -> None:
    """None says so; so does a stream that nobody knows."""
    monitor = Monitor()
    monitor.apply(batch(scores([0.5])))
    assert monitor.part.estimated(KEY, START_S, START_S + 60) is None
    assert monitor.part.estimated(KEY._replace(model="x"), START_S, START_S + 60) is None
    assert isotonic.apply(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([0.5]))[0] == 0.5


def fair(monitor: Monitor, **given: Any) -> Monitor:
    """Send two large groups and a small one: `a` is selected twice as often as `b`, at equal true rates."""
    sizes = {"a": 400, "b": 400, "tiny": 19}
    rates = {"a": 0.6, "b": 0.3, "tiny": 1.0}
    region = [name for name, size in sizes.items() for _ in range(size)]
    score = np.concatenate([np.where(np.arange(n) < rates[g] * n, 0.9, 0.1) for g, n in sizes.items()])
    monitor.apply(batch(scores(score), category("region", region)))
    monitor.truth(["yes" if i % 2 else "no" for i in range(len(score))])
    return monitor


def test_gaps_between_groups_are_those_of_their_rates() -> None:
    """The widest pair is named, with an interval; groups below the floor are hidden and counted."""
    found = fair(Monitor()).part.fairness(KEY, "region", START_S, START_S + 60)
    assert found is not None
    assert ([group.name for group in found.groups], found.hidden) == (["a", "b"], 1)
    parity = next(gap for gap in found.gaps if gap.name == "demographic_parity")
    assert (parity.highest, parity.lowest) == ("a", "b")
    assert parity.value == pytest.approx(0.3)
    assert 0.2 < parity.low < 0.3 < parity.high < 0.4
    assert {gap.name for gap in found.gaps} == {
        "demographic_parity", "equal_opportunity", "false_positive_gap", "error_gap",
    }  # fmt: skip


def test_the_interval_of_the_widest_gap_allows_for_all_pairs() -> None:
    """Among more groups the widest gap is looked for harder: its interval is that of a stricter level."""
    monitor = Monitor()
    region = [name for name in "abcd" for _ in range(100)]
    score = np.concatenate([np.where(np.arange(100) < share, 0.9, 0.1) for share in (60, 50, 45, 30)])
    monitor.apply(batch(scores(score), category("region", region)))
    found = monitor.part.fairness(KEY, "region", START_S, START_S + 60)
    assert found is not None
    parity = next(gap for gap in found.gaps if gap.name == "demographic_parity")
    expected = intervals.difference((60, 100), (30, 100), 1 - 0.05 / 6)
    assert (parity.low, parity.high) == pytest.approx(expected)


def test_a_declared_gap_is_judged() -> None:
    """A breach when the interval excludes what is bearable, for declared columns alone."""
    assert [one for one in judged(fair(Monitor())).values() if one.kind == "fairness"] == []
    found = judged(fair(Monitor(fairness={"loan": ("region",)}, fairness_gap=0.1)))
    assert found["fairness", "region:demographic_parity"].breached
    assert not found["fairness", "region:error_gap"].breached
    bearable = judged(fair(Monitor(fairness={"loan": ("region",)}, fairness_gap=0.4)))
    assert bearable["fairness", "region:demographic_parity"].recovered


def test_metrics_of_one_class_alone_are_undefined_and_raise_nothing() -> None:
    """NaN, never an error or a breach."""
    monitor = Monitor(profile(performance={"roc_auc": 0.9, "recall": 0.9, "accuracy": 0.9}))
    monitor.apply(batch(scores(np.full(200, 0.1))))
    monitor.truth(["no"] * 200)
    found = judged(monitor)
    assert math.isnan(monitor.metrics()["roc_auc"])
    assert set(found) == {("performance", "accuracy")}
