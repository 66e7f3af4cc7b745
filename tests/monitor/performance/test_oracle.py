"""Metrics are scikit-learn's, weights included; intervals cover what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn import metrics as oracle

from gateway.monitor.labels.label import Label
from gateway.monitor.performance import classification
from gateway.monitor.profile.reference import Task, TaskKind
from tests.monitor.performance.rows import KEY, START_S, Monitor, batch, number, profile, scores

if TYPE_CHECKING:
    from gateway.monitor.performance.results import Metric

ROWS = 700


@pytest.fixture
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("digits", [2, 12], ids=["ties", "distinct"])
def test_binary_metrics_are_the_oracles(random: np.random.Generator, weighted: bool, digits: int) -> None:
    """Every metric equals the oracle's on random rows, weighted or not, with and without ties."""
    truth = random.random(ROWS) < 0.3
    score = np.round(np.clip(0.25 * truth + random.beta(2, 3, ROWS), 0.01, 0.99), digits)
    weights = random.choice([1.0, 4.0, 20.0], ROWS) if weighted else np.ones(ROWS)
    monitor = Monitor()
    monitor.apply(batch(scores(score), weights=weights))
    monitor.truth(["yes" if t else "no" for t in truth])
    found = monitor.metrics()
    predicted = score >= 0.5
    told = {"sample_weight": weights}
    assert found == pytest.approx({
        "accuracy": oracle.accuracy_score(truth, predicted, **told),
        "balanced_accuracy": oracle.balanced_accuracy_score(truth, predicted, **told),
        "precision": oracle.precision_score(truth, predicted, **told),
        "recall": oracle.recall_score(truth, predicted, **told),
        "specificity": oracle.recall_score(~truth, ~predicted, **told),
        "f1": oracle.f1_score(truth, predicted, **told),
        "roc_auc": oracle.roc_auc_score(truth, score, **told),
        "log_loss": oracle.log_loss(truth, score, **told),
        "brier": oracle.brier_score_loss(truth, score, **told),
        "ece": found["ece"],
    }, abs=1e-9)  # fmt: skip
    whole = monitor.part.results(KEY, START_S, START_S + 60)
    assert whole is not None
    assert np.array(whole.confusion) == pytest.approx(oracle.confusion_matrix(truth, predicted, **told))


def test_multiclass_metrics_are_scikit_learns(random: np.random.Generator) -> None:
    """Accuracy, macro means and log loss of three classes equal the oracle's."""
    names = ("cat", "dog", "elk")
    truth = random.integers(0, 3, ROWS)
    raw = random.dirichlet([1, 1, 1], ROWS) + 0.7 * np.eye(3)[truth]
    score = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    task = Task(kind=TaskKind.MULTICLASS, score="probabilities", classes=names)
    monitor = Monitor(profile(task))
    monitor.apply(batch(scores(score)))
    monitor.truth([names[t] for t in truth])
    predicted = score.argmax(axis=1)
    assert monitor.metrics() == pytest.approx({
        "accuracy": oracle.accuracy_score(truth, predicted),
        "precision": oracle.precision_score(truth, predicted, average="macro"),
        "recall": oracle.recall_score(truth, predicted, average="macro"),
        "f1": oracle.f1_score(truth, predicted, average="macro"),
        "roc_auc": np.mean([oracle.roc_auc_score(truth == c, score[:, c]) for c in range(3)]),
        "log_loss": oracle.log_loss(truth, score / score.sum(axis=1, keepdims=True)),
    }, abs=1e-6)  # fmt: skip


def test_regression_metrics_are_scikit_learns(random: np.random.Generator) -> None:
    """MAE, RMSE, R2 and bias equal the oracle's on weighted rows."""
    truth = random.normal(10, 4, ROWS)
    guess = truth + random.normal(0.5, 1, ROWS)
    weights = random.choice([1.0, 8.0], ROWS)
    monitor = Monitor(profile(Task(kind=TaskKind.REGRESSION, score="price")))
    monitor.apply(batch(number(guess), weights=weights))
    monitor.truth(truth.tolist())
    told = {"sample_weight": weights}
    assert monitor.metrics() == pytest.approx({
        "mae": oracle.mean_absolute_error(truth, guess, **told),
        "rmse": oracle.root_mean_squared_error(truth, guess, **told),
        "r2": oracle.r2_score(truth, guess, **told),
        "bias": np.average(guess - truth, weights=weights),
    })  # fmt: skip


def test_ranking_metrics_are_scikit_learns(random: np.random.Generator) -> None:
    """NDCG of ten equals the oracle's over requests of fifteen rows; MRR is of the first relevant one."""
    requests, rows = 40, 15
    score = random.random((requests, rows))
    relevance = random.integers(0, 4, (requests, rows)).astype(float)
    keys = tuple(b"r%d" % i for i in range(requests) for _ in range(rows))
    monitor = Monitor(profile(Task(kind=TaskKind.RANKING, score="price")))
    places = np.tile(np.arange(rows), requests)
    monitor.apply(batch(number(score.ravel()), keys=keys, row_indexes=places))
    flat = zip(keys, places.tolist(), relevance.ravel().tolist(), strict=True)
    monitor.post(*(Label(key, place, value) for key, place, value in flat))
    ordered = np.take_along_axis(relevance, np.argsort(-score, axis=1), axis=1)
    assert monitor.metrics() == pytest.approx({
        "ndcg": oracle.ndcg_score(relevance, score, k=10),
        "mrr": np.mean(1 / (1 + np.argmax(ordered > 0, axis=1))),
    })  # fmt: skip


def test_intervals_cover_the_truth_as_often_as_they_say(random: np.random.Generator) -> None:
    """Of 400 samples of 300 weighted rows, 90 % intervals hold the population's value in 85 to 95 of 100."""
    score = np.clip(random.beta(2, 2, 200_000), 0.001, 0.999)
    truth = random.random(200_000) < score
    ones = np.ones(200_000)
    whole = _binary(truth, score, ones)
    held = dict.fromkeys(whole, 0)
    for _ in range(400):
        chosen = random.integers(0, 200_000, 300)
        weights = random.choice([1.0, 9.0], 300)
        for name, metric in _binary(truth[chosen], score[chosen], weights).items():
            held[name] += metric.low <= whole[name].value <= metric.high
    assert {name: share for name, count in held.items() if not 0.84 <= (share := count / 400) <= 0.955} == {}


def _binary(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> dict[str, Metric]:
    found = classification.by_class(truth, score >= 0.5, weights, 0.9)
    found["roc_auc"] = classification.area(truth, score, weights, 0.9)
    found |= classification.probabilistic(truth, score, weights, 0.9)
    del found["ece"]
    return found
