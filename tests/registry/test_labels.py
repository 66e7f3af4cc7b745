"""Numbers of labels, and what selects among labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.labels import MAX_NUMBER, dotted, is_prefix, matches, number_of

MILLION = 10**6


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("1", 1),
        ("7", 7),
        ("v7", 7),
        ("20240315123000", 20240315123000),
        (str(MAX_NUMBER), MAX_NUMBER),
        ("0.0.1", 1),
        ("0.1", MILLION),
        ("1.0", MILLION**2),
        ("1.4", MILLION**2 + 4 * MILLION),
        ("1.4.0", MILLION**2 + 4 * MILLION),
        ("v1.4.2", MILLION**2 + 4 * MILLION + 2),
        ("10.0.0", 10 * MILLION**2),
        ("9000000.999999.999999", 9 * 10**18 + 999999999999),
    ],
)
def test_a_label_has_its_number(label: str, number: int) -> None:
    """Integers are themselves, dotted labels are weighed by place."""
    assert number_of(label) == number


@pytest.mark.parametrize(
    "label",
    [
        *(
            "",
            "0",
            "00",
            "01",
            "-1",
            "+1",
            "1_000",
            " 1",
            "1 ",
            "1\n",
            "\u0661",
            "1e3",
            "0x1",
            "latest",
            "v",
            "vv1",
        ),
        *("V1", "1.", ".1", "1..2", "01.2", "1.02", "1.2.03", "1.2.3.4", "1.x", "1.2-rc1", "1.2.3+b", "v1."),
        *("0.0", "0.0.0", "v0", "1000000000.1", "9000001.0", "1.1000000", "1.2.1000000", "1.2.\u0663"),
        *(str(MAX_NUMBER + 1), "9" * 19, "9" * 5000, "../1", "1/2", "1\0"),
    ],
)
def test_what_is_no_label_has_no_number(label: str) -> None:
    """Nothing is guessed."""
    assert number_of(label) is None


versions = st.tuples(
    st.integers(0, 9_000_000), st.integers(0, MILLION - 1), st.integers(0, MILLION - 1)
).filter(any)


@given(versions, versions)
def test_numbers_are_ordered_as_versions_are(
    first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    """Part by part, and equal only when all parts are; all fit the protocol."""
    ours, theirs = [number_of("{}.{}.{}".format(*parts)) for parts in (first, second)]
    assert ours is not None
    assert theirs is not None
    assert (ours < theirs, ours == theirs) == (first < second, first == second)
    assert 0 < ours <= MAX_NUMBER


@given(versions)
def test_the_ways_to_write_a_version_are_equal(parts: tuple[int, int, int]) -> None:
    """A `v` says nothing, nor does a patch of 0."""
    label = "{}.{}.{}".format(*parts)
    assert number_of(f"v{label}") == number_of(label)
    assert dotted(label) == parts
    if parts[2] == 0:
        assert number_of("{}.{}".format(*parts)) == number_of(label)


@given(st.text(alphabet="0123456789.vx-_ a\n", max_size=12))
def test_any_text_has_a_positive_number_or_none(text: str) -> None:
    """What has one is plain ASCII digits and dots."""
    number = number_of(text)
    if number is not None:
        assert 0 < number <= MAX_NUMBER
        assert set(text) <= set("0123456789.v")


@pytest.mark.parametrize(
    ("prefix", "selected", "others"),
    [
        (
            "1.x",
            ["1.0", "1.4", "v1.4.2", "1.999999.0"],
            ["2.0", "10.1", "0.1", "1", "v1", "11.0", "junk", ""],
        ),
        ("v1.4.x", ["1.4", "1.4.0", "v1.4.9"], ["1.40.0", "1.3.4", "2.4.1", "1", "14"]),
        ("0.x", ["0.1", "0.0.1"], ["1.0", "0.0", "0"]),
        ("1.0.x", ["1.0", "1.0.7"], ["1.1", "10.0"]),
    ],
)
def test_a_prefix_selects_its_line(prefix: str, selected: list[str], others: list[str]) -> None:
    """By whole parts, never by the digits they begin with."""
    assert is_prefix(prefix)
    every = [*selected, *others]
    chosen = [label for label in every if number_of(label) is not None and matches(prefix, label)]
    assert chosen == selected


@pytest.mark.parametrize(
    "text", ["", "x", "1", "1.4", "1.X", "1.x.x", "1.2.3.x", "01.x", "1.x ", "latest", "1.4.2"]
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    """A selector that is meant as a label or an alias is not taken for a line of versions."""
    assert not is_prefix(text)
    with pytest.raises(ValueError, match="neither"):
        matches(text, "1.4")


@given(versions, versions)
def test_a_version_is_of_its_own_line(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    """And of another's exactly when they begin alike."""
    label = "{}.{}.{}".format(*second)
    assert matches(f"{first[0]}.x", label) == (first[0] == second[0])
    assert matches(f"{first[0]}.{first[1]}.x", label) == (first[:2] == second[:2])
    assert matches(f"{second[0]}.{second[1]}.x", label)
