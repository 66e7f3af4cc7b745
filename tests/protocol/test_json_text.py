from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.protocol.json_rewrite import (
    Rewritten,
    StandIns,
    replace_non_finite,
    stand_ins_of,
    widen_long_integers,
)
from gateway.protocol.json_text import JsonDocument, parse_object, too_deep
from gateway.protocol.limits import DEFAULT_LIMITS, ProtocolLimits
from tests.properties import examples


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab[]{}"\\\n', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.integers(0, 6))
@settings(max_examples=examples(300))
def test_depth_is_counted_outside_strings_only(value: Any, most: int) -> None:
    """The depth check agrees with the parsed value, whatever brackets, quotes and escapes strings hold."""
    assert too_deep(json.dumps(value).encode(), most) == (depth_of(value) > most)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_documents_are_refused_before_they_are_parsed(opening: bytes) -> None:
    """A document one level too deep is refused, even where it is never closed."""
    for text in (b'{"a":' + opening * 100, b'{"a":' + opening * 500_000):
        with pytest.raises(InvalidRequest, match="nested deeper than 100 levels"):
            parse_object(text, DEFAULT_LIMITS)


def test_depth_is_carried_across_the_pieces_it_is_counted_in() -> None:
    """A long document is counted piece by piece, and depth that builds up slowly is still found."""
    text = b'{"a":[' + (b"[" + b"[]," * 30_000 + b"[]") * 9 + b"]" * 10 + b"}"
    assert not too_deep(text, 12)
    assert too_deep(text, 11)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"\\"":', b'{"\\\\":'])
def test_depth_is_counted_in_memory_for_a_few_copies(opening: bytes) -> None:
    """A text made of strings and brackets takes no more memory than one of the same size without."""
    text = opening * (1_000_000 // len(opening))
    tracemalloc.start()
    try:
        assert too_deep(text, 100)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * len(text) + (3 << 20)


def test_the_depth_limit_is_exact() -> None:
    """A document of exactly the allowed depth is parsed."""
    limits = ProtocolLimits(max_json_depth=3)
    assert parse_object(b'{"a":[[1]]}', limits).root is not None
    with pytest.raises(InvalidRequest, match="nested deeper than 3"):
        parse_object(b'{"a":[[[1]]]}', limits)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "the document is empty"),
        (b"  ", "the document is empty"),
        (b"[1]", "it must be an object"),
        (b"5", "it must be an object"),
        (b'{"a":1}x', "its structure is malformed"),
        (b'{"a":1,}', "its structure is malformed"),
        (b'{"a":1', "its structure is malformed"),
        (b'{"a":"\xff"}', "not valid UTF-8"),
        (rb'{"a":"\ud800"}', "a string is malformed"),
        (b'{"a":"b', "a string is not closed"),
        (b'{"a":"\n"}', "control character"),
        (b'{"a":1e400}', "a number is malformed or too large"),
        (b'{"a":01}', "malformed"),
        (b'{"a":1}\x00', "its structure is malformed"),
        (b'{"a":NaN1}', "malformed"),
        (b'{"a":1NaN}', "malformed"),
        (b'{"a":1.Infinity}', "malformed"),
        (b'{"a":Infinit}', "malformed"),
        (b'{"a":' + b"9" * 400 + b"}", "an integer is too large"),
        (b'{"a":NaN,"b":"' + b'","c":"' * 210_000 + b'"}', "too many strings"),
        (b'{"a":NaN,"b":"' + rb"\"" * 150_000, "a string is not closed"),
    ],
)
def test_texts_that_are_no_json_object_are_refused_with_a_reason(text: bytes, reason: str) -> None:
    """Each fault is named in the gateway's words, behind the words that Triton begins with."""
    with pytest.raises(InvalidRequest, match="failed to parse the request JSON buffer: .*" + reason):
        parse_object(text, DEFAULT_LIMITS)


def floats(text: bytes) -> Any:
    document = parse_object(b'{"a":' + text + b"}", DEFAULT_LIMITS)
    data: Any = document.root["a"]
    values = np.frombuffer(data.as_buffer(of_type="d"), np.float64)
    document.restore_non_finite(values)
    document.check_non_finite("m")
    return values


def test_every_token_that_triton_takes_is_read() -> None:
    """NaN, Infinity and Inf of either sign are put back where they stood."""
    got = floats(b"[NaN,-NaN,Infinity,-Infinity,Inf,-Inf,1.5,-0.0]")
    np.testing.assert_array_equal(got, [np.nan, np.nan, np.inf, -np.inf, np.inf, -np.inf, 1.5, -0.0])


@given(st.lists(st.floats() | st.integers(-(10**30), 10**30), min_size=1, max_size=10))
@settings(max_examples=examples(300))
def test_pythons_own_json_is_read_exactly(values: list[float]) -> None:
    """Whatever numbers Python's json module writes, of any size and NaN, are read to the nearest double."""
    np.testing.assert_array_equal(floats(json.dumps(values).encode()), np.array([float(v) for v in values]))


def test_tokens_in_strings_are_left_alone() -> None:
    """Words and digits in strings are not touched when numbers are rewritten."""
    text = rb'{"NaN":"say \"NaN\" Inf 99999999999999999999999","a":[NaN, 99999999999999999999999]}'
    rewritten = widen_long_integers(replace_non_finite(text).text)
    assert rewritten.startswith(rb'{"NaN":"say \"NaN\" Inf 99999999999999999999999","a":[')
    assert rewritten.endswith(b", 99999999999999999999999e0]}")
    assert replace_non_finite(text).replaced == 1


def test_long_integers_that_fit_64_bits_stay_integers() -> None:
    """Only integers that no 64-bit type holds are made doubles."""
    fits = b"[18446744073709551615,-9223372036854775808]"
    assert widen_long_integers(fits) == fits
    assert widen_long_integers(b"[18446744073709551616,-9223372036854775809]").count(b"e0") == 2


@pytest.mark.parametrize("stand_in", [b"100007e-300", b"-100008e-300"])
def test_a_stand_in_among_the_data_is_refused(stand_in: bytes) -> None:
    """A client whose data holds the very double that stands for NaN gets an error, not another value."""
    values = np.array([100_007e-300, float(stand_in)])
    standing = StandIns(100_007e-300, 100_008e-300, b"", b"")
    document = JsonDocument(parse_object(b"{}", DEFAULT_LIMITS).root, Rewritten(b"", 1, standing))
    document.restore_non_finite(values)
    with pytest.raises(InvalidRequest, match="use binary data"):
        document.check_non_finite("m")


def test_a_stand_in_without_tokens_is_a_number_like_any_other() -> None:
    """In a text without tokens no double stands for anything but itself."""
    stand_ins = stand_ins_of(b'{"a":[1]}')
    assert floats(b"[%b,%b]" % (stand_ins.nan_text, stand_ins.infinity_text)).tolist() == [*stand_ins[:2]]


@given(
    st.lists(
        st.sampled_from([b"[", b"]", b'"', rb"\"", rb"\\", b"x" * 999, b"{", b"}", rb"\\" * 40_000]),
        max_size=400,
    ),
    st.integers(1, 60),
)
def test_depth_is_counted_alike_however_the_text_falls_into_windows(parts: list[bytes], most: int) -> None:
    """A plain walk over the characters finds the same."""
    text = b"".join(parts)
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == ord("\\"):
            escaped = True
        elif character == ord('"'):
            quoted = not quoted
        elif not quoted and character in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not quoted and character in b"]}":
            depth -= 1
    assert too_deep(text, most) == (deepest > most)
