"""Labels meet their predictions once, whichever comes first, however often either is sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.monitor_labels import RecordSettings
from gateway.monitor.labels.label import Label, Why
from gateway.monitor.performance.block import CAPACITY, MAX_VALUES
from gateway.monitor.performance.records import MAX_STREAMS
from gateway.monitor.values import Applied
from tests.monitor.performance.rows import KEY, START_S, Monitor, batch, category, profile, scores
from tests.properties import examples

SCORES = [0.1, 0.4, 0.6, 0.9]
TRUTH = ["no", "yes", "no", "yes"]


def labelled(monitor: Monitor) -> int:
    """Return how many predictions have a label."""
    found = monitor.part.results(KEY, START_S, START_S + 3600)
    return 0 if found is None else found.completeness.labelled


def test_a_label_is_joined_before_and_after_its_prediction() -> None:
    """Both orders give the same metrics, and the reply says which it was."""
    late, early = Monitor(), Monitor()
    late.apply(batch(scores(SCORES)))
    assert late.truth(TRUTH).joined == 4
    assert early.truth(TRUTH).waiting == 4
    early.apply(batch(scores(SCORES)))
    assert early.metrics() == late.metrics() != {}


def test_labels_of_rows_that_come_later_to_the_same_block_are_joined() -> None:
    """Rows, labels, more rows, their labels: each label finds its row."""
    monitor = Monitor()
    for first in range(0, 400, 40):
        monitor.apply(batch(scores(np.full(40, 0.9)), first=first))
        assert monitor.truth(["yes"] * 40, first=first).joined == 40
    assert labelled(monitor) == 400


def test_a_later_revision_replaces_an_earlier_one_and_metrics_follow() -> None:
    """What was right becomes wrong; an older revision and a second opinion of the same one are refused."""
    monitor = Monitor()
    monitor.apply(batch(scores(SCORES)))
    monitor.truth(["no", "no", "yes", "yes"], revision=1)
    assert monitor.metrics()["accuracy"] == 1
    assert monitor.truth(["yes"], revision=2).revised == 1
    assert monitor.metrics()["accuracy"] == 0.75
    assert [each.why for each in monitor.truth(["no"], revision=1).refused] == [Why.STALE]
    assert [each.why for each in monitor.truth(["no"], revision=2).refused] == [Why.CONFLICT]
    assert monitor.truth(["yes"], revision=2).duplicates == 1
    assert monitor.metrics()["accuracy"] == 0.75


def test_revisions_of_waiting_labels_follow_the_same_rule() -> None:
    """The highest revision that came before the prediction is the one that is joined."""
    monitor = Monitor()
    monitor.truth(["no"], revision=1)
    monitor.truth(["yes"], revision=3)
    assert monitor.truth(["yes"], revision=3).duplicates == 1
    assert [each.why for each in monitor.truth(["no"], revision=3).refused] == [Why.CONFLICT]
    assert [each.why for each in monitor.truth(["no"], revision=2).refused] == [Why.STALE]
    monitor.apply(batch(scores([0.9])))
    assert monitor.metrics()["accuracy"] == 1
    assert monitor.truth(["yes"], revision=3).duplicates == 1


def test_one_label_is_given_to_a_request_and_to_its_shadow() -> None:
    """A mirrored row has the key of its request: both arms are judged by the same label, even a late copy."""
    monitor = Monitor()
    monitor.apply(batch(scores(SCORES), arms=("stable",)))
    monitor.truth(TRUTH)
    monitor.apply(batch(scores([1 - s for s in SCORES]), arms=("shadow:next",)))
    stable, shadow = (monitor.metrics(KEY._replace(arm=arm)) for arm in ("stable", "shadow:next"))
    assert (stable["accuracy"], shadow["accuracy"]) == (0.5, 0.5)
    assert stable["roc_auc"] + shadow["roc_auc"] == pytest.approx(1)


def test_rows_of_one_request_have_labels_of_their_own() -> None:
    """Key and row together are the identity."""
    monitor = Monitor()
    monitor.apply(batch(scores([0.9, 0.9]), keys=(b"a", b"a"), row_indexes=[0, 1]))
    monitor.post(Label(b"a", 0, "yes"), Label(b"a", 1, "no"))
    assert monitor.metrics()["accuracy"] == 0.5


def test_labels_that_fit_no_class_are_refused_when_their_prediction_is_known() -> None:
    """A wrong type is refused alone; the others are joined."""
    monitor = Monitor()
    monitor.apply(batch(scores(SCORES)))
    reply = monitor.truth(["no", "perhaps", 7.5, 1])
    assert [(each.index, each.why) for each in reply.refused] == [(1, Why.CLASS), (2, Why.CLASS)]
    assert reply.joined == labelled(monitor) == 2
    assert monitor.part.counts()["refused_class"] == 2


def test_what_cannot_be_judged_is_not_kept() -> None:
    """Failed rows, rows without a score and versions without a task are counted and left out."""
    monitor = Monitor()
    monitor.apply(batch(scores([0.1, np.nan, 0.3]), statuses=("", "overloaded"), status_codes=[1, 0, 0]))
    monitor.apply(batch(scores([0.5]), model="other"))
    counts = monitor.part.counts()
    assert (counts["failed"], counts["no_score"], counts["no_task"], counts["records"]) == (1, 1, 1, 1)


def test_segments_are_those_of_the_panes() -> None:
    """A segment's metrics are those of its rows alone."""
    monitor = Monitor(profile(segments=("colour",)))
    monitor.apply(batch(scores(SCORES), category("region", ["n", "n", "s", "s"])))
    monitor.truth(["no", "no", "no", "no"])
    assert monitor.part.segments(KEY) == ["region=n", "region=s"]
    north, south = (monitor.metrics(KEY._replace(segment=f"region={name}")) for name in "ns")
    assert (north["accuracy"], south["accuracy"]) == (1, 0)


def test_a_million_values_of_a_segment_are_bounded() -> None:
    """Beyond the bound they are one segment, and every row stays in one."""
    monitor = Monitor()
    for part in range(20):
        names = [f"user-{part * 500 + i}" for i in range(500)]
        monitor.apply(batch(scores(np.full(500, 0.5)), category("user", names), first=part * 500))
    segments = monitor.part.segments(KEY)
    assert len(segments) <= MAX_VALUES + 1
    rows = [monitor.part.results(KEY._replace(segment=s), START_S, START_S + 60) for s in segments]
    assert sum(r.completeness.predictions for r in rows if r) == 10_000


def test_the_oldest_predictions_make_way() -> None:
    """The bound holds, what went is counted, and its labels wait in vain, then are counted too."""
    monitor = Monitor(records=RecordSettings(rows=2 * CAPACITY))
    for hour in range(4):
        rows = scores(np.full(CAPACITY, 0.5))
        monitor.apply(batch(rows, first=hour * CAPACITY, at_s=START_S + hour * 7200))
    counts = monitor.part.counts()
    assert (counts["records"], counts["evicted"]) == (2 * CAPACITY, 2 * CAPACITY)
    assert monitor.truth(["yes"]).waiting == 1
    monitor.checkpoint(expire_s=monitor.now_s + 90_000)
    assert monitor.part.counts()["unmatched"] == 1


def test_a_flood_of_arms_and_versions_is_bounded_by_model() -> None:
    """A model's streams make way for each other; another model's are left alone."""
    monitor = Monitor()
    monitor.catalog.profiles["other"] = profile(model="other")
    monitor.apply(batch(scores([0.5]), model="other"))
    for flood in range(4):
        arms = tuple(f"shadow:{flood * 250 + i}" for i in range(250))
        monitor.apply(batch(scores(np.full(250, 0.5)), arms=arms, arm_codes=np.arange(250)))
    keys = monitor.part.keys()
    assert len(keys) == MAX_STREAMS + 1
    assert KEY._replace(model="other") in keys
    assert KEY._replace(arm="shadow:999") in keys
    assert monitor.part.counts()["streams_evicted"] == 1000 - MAX_STREAMS
    monitor.checkpoint()
    monitor.restart()
    assert monitor.part.keys() == keys


def test_rows_from_the_future_are_left_out() -> None:
    """A clock that is wrong by more than an hour would keep its rows beyond their retention."""
    monitor = Monitor()
    rows = batch(scores([0.5, 0.5]), at_s=[START_S + 3599, START_S + 3601])
    monitor.part.apply(Applied("gateway", rows, START_S))
    assert (monitor.part.counts()["records"], monitor.part.counts()["future"]) == (1, 1)


def test_a_label_that_was_joined_is_kept_for_copies_only_while_they_may_come() -> None:
    """Labels of old predictions, and those that met theirs a while ago, take no room among waiting ones."""
    monitor = Monitor()
    monitor.apply(batch(scores(SCORES)))
    monitor.now_s = START_S + 500
    monitor.truth(TRUTH[:2])
    assert monitor.part.counts()["waiting"] == 2
    monitor.now_s = START_S + 700
    monitor.truth(TRUTH[2:], first=2)
    assert monitor.part.counts()["waiting"] == 2
    monitor.checkpoint(expire_s=START_S + 1101)
    counts = monitor.part.counts()
    assert (counts["waiting"], counts["unmatched"], labelled(monitor)) == (0, 0, 4)


def test_waiting_labels_are_bounded() -> None:
    """The oldest make way and are counted."""
    monitor = Monitor(labels={"waiting_rows": 100})
    monitor.truth(["yes"] * 250)
    assert (monitor.part.counts()["waiting"], monitor.part.counts()["waiting_dropped"]) == (100, 150)
    monitor.apply(batch(scores(np.full(250, 0.9))))
    assert labelled(monitor) == 100


def test_answers_are_computed_once_until_something_changes() -> None:
    """A label in one window leaves what is remembered of another alone."""
    monitor = Monitor()
    for window in range(2):
        monitor.apply(batch(scores([0.9]), first=window, at_s=START_S + 7200 * window))

    def ask() -> None:
        for begin_s in (START_S, START_S + 7200):
            monitor.part.results(KEY, begin_s, begin_s + 60)

    ask()
    ask()
    assert monitor.part._remembered.computed == 2
    monitor.truth(["yes"], first=1)
    ask()
    assert monitor.part._remembered.computed == 3


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(0, 5)),
        st.tuples(st.just("label"), st.integers(0, 9), st.integers(0, 2)),
        st.tuples(st.just("checkpoint")),
        st.tuples(st.just("failed checkpoint")),
        st.tuples(st.just("crash")),
    ),
    max_size=25,
)


@given(EVENTS)
@settings(max_examples=examples(100), deadline=None)
def test_the_join_is_exact_under_crashes_and_replays(events: list[tuple[str, int, int]]) -> None:
    """Whatever crashes where: replaying what was not durable gives what an undisturbed run gives."""
    crashing, steady = Monitor(), Monitor()
    undurable: list[tuple[str, int, int]] = []
    seen: set[int] = set()
    for event in events:
        match event[0]:
            case "rows" | "label":
                if event[0] == "rows":
                    if event[1] in seen:
                        continue  # the engine drops duplicates of a batch
                    seen.add(event[1])
                undurable.append(event)
                _do(crashing, event)
                _do(steady, event)
            case "checkpoint":
                crashing.checkpoint()
                undurable.clear()
            case "failed checkpoint":
                crashing.database.execute("BEGIN IMMEDIATE")
                crashing.part.flush(crashing.database)
                crashing.database.execute("ROLLBACK")
                crashing.part.rolled_back()
            case "crash":
                crashing.restart()
                for again in undurable:
                    _do(crashing, again)
    crashing.checkpoint()
    crashing.restart()
    assert crashing.metrics() == pytest.approx(steady.metrics(), nan_ok=True)
    assert labelled(crashing) == labelled(steady)
    assert crashing.part.counts() == steady.part.counts()


def _do(monitor: Monitor, event: tuple[str, int, int]) -> None:
    if event[0] == "rows":
        monitor.apply(batch(scores([0.2, 0.8]), first=2 * event[1]))
    else:
        value = "yes" if event[2] % 2 else "no"
        monitor.post(Label(b"k%d" % event[1], 0, value, revision=event[2], at_ns=int(START_S * 1e9)))
