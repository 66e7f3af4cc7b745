"""Sampling: who is kept agrees everywhere, and weights make up for who is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from gateway.core.errors import BackendError
from gateway.core.types import InferRequest
from gateway.predlog import join_keys
from gateway.predlog.join_keys import Source, arm_of, key_hash, subject_hash
from gateway.predlog.policy import ModelPolicy, OutlierRule
from gateway.predlog.rows import Reason
from gateway.predlog.sampling import Offered, Sampler, SamplingOptions
from gateway.routing.bucket import unit_of
from gateway.routing.shadow_copies import SHADOW_FLOW
from tests.predlog.scene import Scene, batch, request
from tests.properties import examples


def keyed(count: int, prefix: str = "k", arm: str = "") -> list[InferRequest]:
    return [request(f"{prefix}{number}", arm) for number in range(count)]


def kept_of(sampler: Sampler, requests: list[InferRequest], now_s: float = 0.5) -> set[bytes]:
    return set(sampler.pick(Offered(requests, [1] * len(requests)), now_s).keys)


@given(st.binary(max_size=600))
def test_the_hash_is_the_documented_one(key: bytes) -> None:
    """Any language can reproduce it: xxh3_64 over salt and key, each behind its length."""
    salt = b"prediction-log"
    text = len(salt).to_bytes(4, "little") + salt + len(key).to_bytes(4, "little") + key
    assert key_hash(key) == xxh3_64_intdigest(text)


def test_arms_are_no_sample_of_keys() -> None:
    """Sampling and splitting hash with different salts: half of the log is half of every arm."""
    keys = [b"%d" % number for number in range(4000)]
    in_log = np.array([key_hash(key) < 1 << 63 for key in keys])
    salt = len(b"s").to_bytes(4, "little") + b"s"
    in_arm = np.array([unit_of(salt, key) < 1 << 63 for key in keys])
    assert abs(float(np.mean(in_log[in_arm])) - 0.5) < 0.05


@given(low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=examples(30))
def test_a_smaller_sample_is_part_of_a_larger_one(low: float, high: float) -> None:
    """Two gateways with different ratios agree on every key that the smaller one keeps."""
    low, high = sorted((low, high))
    requests = keyed(200)
    less = kept_of(Sampler(SamplingOptions(ratio=low)), requests)
    assert less <= kept_of(Sampler(SamplingOptions(ratio=high)), requests)


def test_a_shadow_pair_is_kept_or_left_out_together() -> None:
    """The copy of a mirrored request has its key, and so the same fate, under its own arm."""
    scene = Scene(ModelPolicy(sampling=SamplingOptions(ratio=0.3)))
    scene.tap.on_batch(batch(keyed(300, arm="stable")))
    scene.tap.on_batch(batch(keyed(300, arm="shadow:next")))
    keys: dict[str, set[bytes]] = {"stable": set(), "shadow:next": set()}
    for found in scene.end():
        for key, code in zip(found.keys, found.arm_codes, strict=True):
            keys[found.arms[code]].add(key)
    assert keys["stable"] == keys["shadow:next"]
    assert 50 < len(keys["stable"]) < 130


def test_copies_are_told_from_requests() -> None:
    """A copy that brings no arm is still no row of its model's traffic."""
    assert join_keys.SHADOW_FLOW == SHADOW_FLOW
    copy = InferRequest(model_name="m", model_version="4", inputs=(), flow_key=SHADOW_FLOW)
    assert arm_of(copy) == "shadow:4"
    assert arm_of(request("a")) == ""


@pytest.mark.parametrize("ratio", [0.05, 0.3, 1.0])
def test_weighted_sums_are_unbiased(ratio: float) -> None:
    """The weights of what is kept add up to what was offered, within five standard errors, by reason too."""
    count = 20_000
    requests = keyed(count)
    errors = [BackendError("no") if number % 100 == 0 else None for number in range(count)]
    sampler = Sampler(SamplingOptions(ratio=ratio))
    picked = sampler.pick(Offered(requests, [1] * count, errors), 0.5)
    weights, reasons = np.array(picked.weights), np.array(picked.reasons)
    assert (reasons == Reason.ERROR).sum() == count // 100
    assert (weights[reasons == Reason.ERROR] == 1).all()
    assert np.allclose(weights[reasons == Reason.SAMPLED], 1 / ratio)
    error = 5 * np.sqrt(count * (1 - ratio) / ratio)
    assert abs(weights.sum() - count) <= error + 1e-6
    assert picked.left_out == count - len(weights)
    assert sum(picked.produced.values()) == count


def test_what_must_be_kept_is_kept() -> None:
    """Errors, the canary, whoever asks for it and unusual values are logged even at a ratio of 0."""
    policy = ModelPolicy(
        sampling=SamplingOptions(ratio=0.0, pinned=Source("header", "x-log")),
        outliers=(OutlierRule("x", low=-5.0, high=5.0),),
    )
    scene = Scene(policy)
    requests = [request("e"), request("c", "canary"), request("p", headers={"x-log": "1"}), request("o")]
    values = np.zeros((6, 2), np.float32)
    values[3, 1] = 9.0
    values[4, 0] = np.nan
    made = batch(
        [*requests, request("n"), request("s", "stable")], {"x": values}, errors={0: BackendError("")}
    )
    scene.tap.on_batch(made)
    (found,) = scene.end()
    reasons = [Reason.ERROR, Reason.CANARY, Reason.PINNED, Reason.OUTLIER]
    assert dict(zip(found.keys, found.reasons.tolist(), strict=True)) == dict(
        zip((b"e", b"c", b"p", b"o"), reasons, strict=True)
    )
    assert (found.weights == 1).all()
    assert scene.accounts.totals().dropped == {"sampled": 2}


def run_seconds(sampler: Sampler, seconds: int, per_second: int, *, failing: bool = False) -> list[float]:
    """Rows kept, weighted, in each second."""
    totals: list[float] = []
    for second in range(seconds):
        total = 0.0
        for part in range(10):
            requests = keyed(per_second // 10, f"{second}/{part}/")
            errors = [BackendError("no")] * len(requests) if failing else None
            picked = sampler.pick(Offered(requests, [1] * len(requests), errors), second + part / 10)
            total += sum(picked.weights)
        totals.append(total)
    return totals


@pytest.mark.parametrize("failing", [False, True])
def test_a_budget_thins_and_recovers(failing: bool) -> None:
    """Beyond the rows per second p is halved, weights follow, and with less traffic p is the declared one."""
    sampler = Sampler(SamplingOptions(max_rows_per_s=100))
    totals = run_seconds(sampler, 12, 2000, failing=failing)
    assert totals[0] == 2000
    picked = sampler.pick(
        Offered(keyed(200, "x"), [1] * 200, [BackendError("")] * 200 if failing else None), 11.95
    )
    assert set(picked.weights) == {32.0}
    assert abs(np.mean(totals) - 2000) < 5 * np.sqrt(2000 * 32 / 12)
    for second in range(12, 20):
        sampler.pick(Offered(keyed(1), [1]), float(second))
    picked = sampler.pick(Offered(keyed(10), [1] * 10), 20.5)
    assert set(picked.weights) == {1.0}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (Source("request_id"), b"id"),
        (Source("header", "x-key"), b"head"),
        (Source("parameter", "customer"), b"17"),
        (Source("parameter", "vip"), b"true"),
        (Source("parameter", "none"), b""),
    ],
)
def test_a_key_is_where_the_policy_says(source: Source, key: bytes) -> None:
    """Numbers are their decimal text, booleans `true` and `false`, as in the hash of splits."""
    asked = request("id", headers={"x-key": "head"}, parameters={"customer": 17, "vip": True})
    assert source.value(asked) == key
    assert source.values([asked]) == [key]


def test_a_subject_is_a_keyed_hash() -> None:
    """With the secret a known person's rows can be found, without it nothing is said of the person."""
    options = SamplingOptions(subject=Source("header", "x-user"), secret=b"secret")
    scene = Scene(ModelPolicy(sampling=options))
    scene.tap.on_batch(batch([request("a", headers={"x-user": "anna"}), request("b")]))
    (found,) = scene.end()
    assert found.subject_hashes.tolist() == [subject_hash(b"secret", b"anna"), 0]
    assert subject_hash(b"other", b"anna") != subject_hash(b"secret", b"anna") != 0
    assert b"anna" not in scene.kept.bytes()
