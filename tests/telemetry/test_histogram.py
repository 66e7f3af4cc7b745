"""Bucket counts."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.histogram import SECONDS, BucketCounts, histogram_family

VALUES = st.lists(st.one_of(st.sampled_from(SECONDS), st.floats(0, 100)))


@given(VALUES)
def test_each_bound_counts_the_values_at_or_below_it(values: list[float]) -> None:
    """Cumulative counts are those of a naive count, bounds included."""
    counts = BucketCounts(SECONDS)
    counts.observe_each(values)
    naive = [sum(v <= bound for v in values) for bound in (*SECONDS, float("inf"))]
    assert counts.cumulative() == naive
    assert counts.count == len(values)
    assert counts.total == sum(values)


def test_a_family_holds_every_series_with_its_labels() -> None:
    """Buckets carry `le`, and count and sum do not."""
    first, second = BucketCounts((1.0, 2.0)), BucketCounts((1.0, 2.0))
    first.observe(1.5)
    second.observe_each([0.5, 9.0])
    family = histogram_family("t_seconds", "T.", ("model",), {("a",): first, ("b",): second})
    found = {(s.name, s.labels["model"], s.labels.get("le")): s.value for s in family.samples}
    assert found == {
        ("t_seconds_bucket", "a", "1.0"): 0,
        ("t_seconds_bucket", "a", "2.0"): 1,
        ("t_seconds_bucket", "a", "+Inf"): 1,
        ("t_seconds_count", "a", None): 1,
        ("t_seconds_sum", "a", None): 1.5,
        ("t_seconds_bucket", "b", "1.0"): 1,
        ("t_seconds_bucket", "b", "2.0"): 1,
        ("t_seconds_bucket", "b", "+Inf"): 2,
        ("t_seconds_count", "b", None): 2,
        ("t_seconds_sum", "b", None): 9.5,
    }
