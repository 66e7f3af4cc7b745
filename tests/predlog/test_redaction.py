"""Redaction: what a policy does not let out is nowhere in the bytes that leave, and the rest is right."""

from __future__ import annotations

import hmac

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.core.types import Array, Datatype, ModelSignature, TensorSpec
from gateway.predlog.join_keys import Source
from gateway.predlog.policy import ModelPolicy, Rule, SegmentRule, TensorRule
from gateway.predlog.redaction import (
    MAX_CATEGORIES,
    OTHER,
    PROJECTION_WIDTH,
    LoggedTensor,
    Vocabulary,
    plan_tensor,
)
from gateway.predlog.rows import Column, ColumnKind, Role, RowBatch
from tests.predlog.scene import VERSION, Scene, batch, column, request
from tests.properties import examples

SECRET = b"pepper"


def texts(*values: str) -> Array:
    """A BYTES tensor of one value per row."""
    return np.array([value.encode() for value in values], object).reshape(-1, 1)


def logged(inputs: dict[str, Array], **rules: TensorRule) -> tuple[RowBatch, bytes]:
    """What leaves of these inputs under these rules, decoded and as bytes."""
    rows = len(next(iter(inputs.values())))
    scene = Scene(ModelPolicy(inputs=rules), secret=SECRET)
    if rules:
        scene.tap.signatures[VERSION] = signature_of(inputs)
    scene.tap.on_batch(batch([request(f"k{n}") for n in range(rows)], inputs))
    (found,) = scene.end()
    return found, scene.kept.bytes()


def signature_of(inputs: dict[str, Array]) -> ModelSignature:
    """The signature of a model with these inputs."""
    specs = [
        TensorSpec(name, Datatype.BYTES if array.dtype == object else Datatype.FP32, (-1, *array.shape[1:]))
        for name, array in inputs.items()
    ]
    return ModelSignature(tuple(specs), (TensorSpec("y", Datatype.FP64, (-1, 1)),))


def categories(found: Column) -> list[bytes | None]:
    return [None if code < 0 else found.dictionary[code] for code in found.values.ravel()]


SENSITIVE = st.sampled_from(["4929123456789012", "anna@example.org", "secret diagnosis", "Überraschung"])


@given(
    values=st.lists(SENSITIVE, min_size=1, max_size=8),
    rule=st.sampled_from(["auto", "drop", "hmac", "length"]),
)
@settings(max_examples=examples(40))
def test_free_text_never_leaves(values: list[str], rule: str) -> None:
    """Whatever is dropped, hashed or measured: no byte sequence of it is in what leaves the process."""
    rules = {} if rule == "auto" else {"note": TensorRule(Rule(rule))}
    _, data = logged({"note": texts(*values)}, **rules)
    for value in values:
        assert value.encode() not in data
        assert value.encode()[:6] not in data


def test_headers_and_parameters_never_leave() -> None:
    """Of a request nothing leaves but its key and the segments that were declared."""
    policy = ModelPolicy(segments=(SegmentRule("country", Source("header", "x-country")),))
    scene = Scene(policy)
    headers = {"authorization": "Bearer hush", "x-country": "de", "cookie": "session=hush"}
    scene.tap.on_batch(batch([request("k", headers=headers, parameters={"pin": "4711-hush"})]))
    (found,) = scene.end()
    assert categories(column(found, "country")) == [b"de"]
    assert b"hush" not in scene.kept.bytes()


def test_dropped_numbers_never_leave() -> None:
    """A number that is dropped, bucketed or summed up cannot be read back."""
    values = np.array([[51234.567], [98765.4321]])
    for rule in (TensorRule(Rule.DROP), TensorRule(Rule.BUCKET, edges=(0.0, 60_000.0))):
        _, data = logged({"income": values}, income=rule)
        for value in values.ravel():
            assert np.float64(value).tobytes() not in data
            assert np.float32(value).tobytes() not in data


def test_categories_keep_their_values() -> None:
    """BYTES, whole numbers and truncated texts become codes into a dictionary, row by row."""
    inputs = {
        "a": texts("x", "y", "x"),
        "b": np.array([[7], [7], [-2]], np.int64),
        "c": texts("abc", "abd", "b"),
    }
    rules = {"a": TensorRule(Rule.CATEGORY), "b": TensorRule(Rule.CATEGORY)}
    found, _ = logged(inputs, **rules, c=TensorRule(Rule.TRUNCATE, length=2))
    assert categories(column(found, "a")) == [b"x", b"y", b"x"]
    assert categories(column(found, "b")) == [b"7", b"7", b"-2"]
    assert categories(column(found, "c")) == [b"ab", b"ab", b"b"]


def test_a_keyed_hash_is_the_same_everywhere() -> None:
    """HMAC-SHA256 of name and value: equal values are equal, also for another gateway with the key."""
    found, _ = logged({"id": texts("u1", "u2", "u1")}, id=TensorRule(Rule.HMAC))
    first, second, third = categories(column(found, "id"))
    assert first == third != second
    assert first == hmac.digest(SECRET, b"id\0u1", "sha256")[:12].hex().encode()


def test_buckets_hold_their_upper_edge() -> None:
    """Interval i is (edges[i-1], edges[i]]; missing values are missing."""
    values = np.array([[-1.0], [0.0], [5.0], [5.1], [np.nan], [np.inf]])
    found, _ = logged({"age": values}, age=TensorRule(Rule.BUCKET, edges=(0.0, 5.0)))
    names = categories(column(found, "age"))
    assert names == [b"(-inf,0]", b"(-inf,0]", b"(0,5]", b"(5,inf)", None, b"(5,inf)"]


def test_lengths_are_those_of_the_bytes() -> None:
    """`length` says how long a text is and nothing else."""
    found, _ = logged({"note": texts("", "abc", "ü")}, note=TensorRule(Rule.LENGTH))
    assert column(found, "note").values.ravel().tolist() == [0, 3, 2]


def test_numbers_are_logged_as_they_are() -> None:
    """Every numeric type arrives with its values and its labels; bfloat16 as float32."""
    inputs = {
        "narrow": np.arange(6, dtype=np.int16).reshape(2, 3),
        "half": np.array([[1.5], [2.5]], Datatype.BF16.dtype),
        "flag": np.array([[True], [False]]),
        "deep": np.arange(8, dtype=np.float64).reshape(2, 2, 2),
    }
    found, _ = logged(inputs, narrow=TensorRule(labels=("a", "b", "c")))
    assert column(found, "narrow").values.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert column(found, "narrow").labels == ("a", "b", "c")
    assert column(found, "half").values.tolist() == [[1.5], [2.5]]
    assert column(found, "flag").values.tolist() == [[True], [False]]
    assert column(found, "deep").values.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wide_tensors_are_condensed() -> None:
    """Beyond 64 values a row is its summary and a projection; both are those of plain arithmetic."""
    random = np.random.default_rng(1)
    values = random.normal(3, 2, (5, 3, 30)).astype(np.float32)
    values[0, 0, :10] = 0
    values[1, 1, :5] = np.nan
    values[2] = np.nan
    found, _ = logged({"image": values})
    flat = values.reshape(5, -1).astype(np.float64)
    wanted = {
        "mean": np.nanmean(flat, axis=1),
        "std": np.nanstd(flat, axis=1),
        "min": np.nanmin(flat, axis=1),
        "max": np.nanmax(flat, axis=1),
        "zeros": (flat == 0).mean(axis=1),
        "missing": np.isnan(flat).mean(axis=1),
    }
    for part, numbers in wanted.items():
        got = column(found, f"image.{part}").values.ravel()
        assert np.allclose(got, numbers, rtol=1e-4, atol=1e-5, equal_nan=True), part
    projection = column(found, "image")
    assert (projection.kind, projection.values.shape) == (ColumnKind.PROJECTION, (5, PROJECTION_WIDTH))
    assert np.isfinite(projection.values).all()


def test_a_projection_keeps_distances() -> None:
    """Inner products survive on average: distances of projected rows are those of the rows, about."""
    random = np.random.default_rng(2)
    rows = random.normal(0, 1, (40, 4096)).astype(np.float32)
    plan = plan_tensor(LoggedTensor("x", Role.INPUT, rows.dtype, 4096), TensorRule(), b"")
    assert plan is not None
    projected = plan.redact(rows, Vocabulary())[-1]
    scale = np.sqrt(PROJECTION_WIDTH / 4096)
    before = np.linalg.norm(rows[:20] - rows[20:], axis=1) * scale
    after = np.linalg.norm(projected[:20] - projected[20:], axis=1)
    assert np.all(np.abs(after / before - 1) < 0.5)
    assert abs(float(np.mean(after / before)) - 1) < 0.1


def test_segments_are_bounded() -> None:
    """Values that are not declared, or come too late, are one; an absent one is missing."""
    policy = ModelPolicy(
        segments=(
            SegmentRule("country", Source("header", "c"), values=("de", "fr")),
            SegmentRule("shop", Source("parameter", "s"), max_values=2),
        )
    )
    scene = Scene(policy)
    requests = [
        request("1", headers={"c": "de"}, parameters={"s": 1}),
        request("2", headers={"c": "xx"}, parameters={"s": 2}),
        request("3", parameters={"s": 3}),
        request("4", headers={"c": "fr"}),
    ]
    scene.tap.on_batch(batch(requests, rows=[1, 2, 1, 1]))
    (found,) = scene.end()
    country, shop = column(found, "country"), column(found, "shop")
    assert categories(country) == [b"de", OTHER, OTHER, None, b"fr"]
    assert categories(shop) == [b"1", b"2", b"2", OTHER, None]
    assert country.role is Role.SEGMENT


def test_categories_are_bounded() -> None:
    """A million distinct values are as many as fit and one for the rest."""
    vocabulary = Vocabulary()
    codes = {vocabulary.code(b"%d" % number) for number in range(MAX_CATEGORIES + 100)}
    assert len(vocabulary.values()) == MAX_CATEGORIES + 1 == len(codes)
    assert vocabulary.values()[-1] == OTHER
    assert len(Vocabulary().values()) == 0


@pytest.mark.parametrize(
    ("dtype", "rule"),
    [
        ("O", Rule.SUMMARY),
        ("O", Rule.BUCKET),
        ("f4", Rule.CATEGORY),
        ("f8", Rule.HMAC),
        ("f4", Rule.LENGTH),
        ("i8", Rule.TRUNCATE),
    ],
)
def test_rules_that_do_not_fit_are_refused(dtype: str, rule: Rule) -> None:
    """A rule for another kind of tensor is a mistake in the policy, not a reason to log it otherwise."""
    with pytest.raises(ConfigError, match="does not fit"):
        plan_tensor(LoggedTensor("t", Role.INPUT, np.dtype(dtype), 1), TensorRule(rule), b"")


def test_labels_that_do_not_fit_are_refused() -> None:
    """Names for other columns than there are would name the wrong ones."""
    with pytest.raises(ConfigError, match="labels"):
        plan_tensor(LoggedTensor("t", Role.INPUT, np.dtype("f4"), 3), TensorRule(labels=("a", "b")), b"")


def test_a_policy_has_an_identity() -> None:
    """Equal rules have the same, other ones another; rows say under which they were logged."""
    one = ModelPolicy(inputs={"x": TensorRule(Rule.DROP), "y": TensorRule()})
    same = ModelPolicy(inputs={"y": TensorRule(), "x": TensorRule(Rule.DROP)})
    assert one.id() == same.id() != ModelPolicy().id()
    found, _ = logged({"x": np.zeros((1, 1), np.float32)})
    assert found.policy == ModelPolicy().id()
