"""From key to bucket: golden vectors, and the formula again, written from the specification of the hash."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rollout import PPM, HashSpec
from gateway.routing.bucket import bucket_of, salted, unit_of
from tests.routing.xxh3 import xxh3_64

GOLDEN: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden_buckets.json").read_text())[
    "vectors"
]


def key_of(vector: dict[str, Any]) -> bytes:
    """The key of a vector: text as UTF-8, repeated where that is said."""
    text: str = vector["key"]
    return text.encode() * int(vector.get("times", 1))


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda vector: f"{vector['salt'][:12]}/{vector['key'][:12]}")
def test_golden_vectors(vector: dict[str, Any]) -> None:
    """Every implementation, of today and of later, gives these hashes and buckets."""
    unit = unit_of(salted(HashSpec(vector["salt"])), key_of(vector))
    assert (f"{unit:016x}", bucket_of(unit)) == (vector["hash"], vector["bucket"])


@given(salt=st.text(max_size=4), key=st.binary(max_size=40))
def test_the_formula_agrees_with_another_implementation(salt: str, key: bytes) -> None:
    """Lengths are u32, little-endian, before salt and key; the bucket is the hash scaled down."""
    raw = salt.encode()
    message = len(raw).to_bytes(4, "little") + raw + len(key).to_bytes(4, "little") + key
    expected = xxh3_64(message)
    unit = unit_of(salted(HashSpec(salt)), key)
    assert unit == expected
    assert bucket_of(unit) == expected * 1_000_000 // 2**64


@given(unit=st.integers(0, 2**64 - 1))
def test_buckets_are_in_range(unit: int) -> None:
    """No hash falls outside, and the ends are reached."""
    assert 0 <= bucket_of(unit) < PPM
    assert (bucket_of(0), bucket_of(2**64 - 1)) == (0, PPM - 1)


def test_salt_and_key_do_not_run_into_each_other() -> None:
    """Where the salt ends is part of what is hashed."""
    assert unit_of(salted(HashSpec("ab")), b"c") != unit_of(salted(HashSpec("a")), b"bc")
