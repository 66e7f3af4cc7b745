"""The way from the request path to frames: nothing is lost uncounted, nothing is counted twice."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import BackendError, Cancelled, Overloaded
from gateway.core.types import Datatype, InferRequest, ModelSignature, TensorSpec, VersionId
from gateway.predlog.accounts import Accounts
from gateway.predlog.copies import MAX_ROW_BYTES, CopyPlan
from gateway.predlog.encoder import MAX_PLANS, Encoder, EncoderOptions
from gateway.predlog.join_keys import Source
from gateway.predlog.policy import ModelPolicy, OutlierRule, Policies, Rule, SegmentRule, TensorRule
from gateway.predlog.ring import Ran, Rejected, Ring
from gateway.predlog.rows import Reason, Role, RowBatch
from gateway.predlog.sampling import SamplingOptions
from tests.predlog.scene import VERSION, Scene, batch, column, request
from tests.properties import examples

EVENTS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 5), min_size=1, max_size=6),
        st.sampled_from(["", "stable", "canary"]),
        st.sampled_from(["well", "failed", "rejected", "member", "short"]),
    ),
    max_size=25,
)


@given(
    events=EVENTS,
    ratio=st.sampled_from([0.0, 0.3, 1.0]),
    ring=st.sampled_from([10, 10_000]),
    copied=st.booleans(),
)
@settings(max_examples=examples(60))
def test_every_row_is_accounted_for(
    events: list[tuple[list[int], str, str]], ratio: float, ring: int, copied: bool
) -> None:
    """Offered rows are framed or dropped by a reason, and produced by stream, whatever happens to them."""
    policy = ModelPolicy(sampling=SamplingOptions(ratio=ratio))
    scene = Scene(policy, ring_rows=ring, max_batch_bytes=2000)
    offered: dict[str, int] = {}
    if copied:  # those that can be, while they are read
        scene.copy_runs()
        offered[""] = 1
    for number, (rows, arm, outcome) in enumerate(events):
        requests = [request(f"{number}/{place}", arm) for place in range(len(rows))]
        total = len(rows) if outcome == "rejected" else sum(rows)
        offered[arm] = offered.get(arm, 0) + total
        if outcome == "rejected":
            for one in requests:
                scene.tap.on_rejected(VERSION, one, Overloaded("full"))
            continue
        error = BackendError("broken") if outcome == "failed" else None
        errors = {0: BackendError("unfit")} if outcome == "member" else None
        made = batch(requests, rows=rows, error=error, errors=errors)
        if outcome == "short":  # outputs that nobody foresaw
            made.outputs = {"y": np.zeros((0, 1))}
        scene.tap.on_batch(made)
    batches = scene.end()
    totals = scene.accounts.totals()
    assert totals.waiting == 0
    assert totals.offered == sum(offered.values()) == totals.framed + sum(totals.dropped.values())
    assert totals.framed == sum(found.rows for found in batches)
    assert set(totals.dropped) <= {"ring_full", "sampled", "encode_error"}
    assert {key[2]: rows for key, rows in scene.accounts.by_stream().items()} == offered
    last = scene.kept.decoded()[-1]
    assert {p.arm: p.rows for p in last.accounting.produced} == offered
    assert dict(last.accounting.dropped) == totals.dropped
    sequences = [frame.sequence for frame in scene.kept.frames if frame.rows]
    assert sequences == list(range(1, len(batches) + 1))
    assert last.sequence == len(batches)


def test_a_row_says_what_was_served() -> None:
    """Keys, times, arm, status and the values of its tensors are those of the request."""
    scene = Scene()
    requests = [request("a", "stable", arrived_s=0.0), request("bc", "canary")]
    scene.tap.on_batch(batch(requests, rows=[2, 1], errors={1: BackendError("no")}))
    (found,) = scene.end()
    assert found.keys == (b"a", b"a", b"bc")
    assert found.row_indexes.tolist() == [0, 1, 0]
    assert [found.arms[code] for code in found.arm_codes] == ["stable", "stable", "canary"]
    assert [found.statuses[code] for code in found.status_codes] == ["", "", "BackendError"]
    assert found.reasons.tolist() == [Reason.SAMPLED, Reason.SAMPLED, Reason.ERROR]
    assert found.queue_us.tolist() == [5000] * 3
    assert found.infer_us.tolist() == [3000] * 3
    assert (found.done_ns >= found.arrived_ns).all()
    assert found.arrived_ns[0] == found.done_ns[0]  # nobody knows when it came
    assert found.key_hashes[0] == found.key_hashes[1] != found.key_hashes[2]
    assert column(found, "x").values.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert column(found, "y").values.ravel().tolist() == [0, 1, 2]
    assert (found.model, found.version, found.digest) == VERSION


def test_rows_of_one_layout_travel_together_and_others_apart() -> None:
    """Failed runs have inputs alone, rejected requests no columns; runs of one kind share a batch."""
    scene = Scene()
    for number in range(3):
        scene.tap.on_batch(batch([request(f"w{number}")]))
    scene.tap.on_batch(batch([request("f")], error=BackendError("no")))
    scene.tap.on_rejected(VERSION, request("r"), Overloaded("full"))
    found = {tuple(c.name for c in each.columns): each for each in scene.end()}
    assert found["x", "y"].keys == (b"w0", b"w1", b"w2")
    assert found["x",].keys == (b"f",)
    assert found["x",].statuses == ("BackendError",)
    assert found[()].keys == (b"r",)
    assert found[()].statuses == ("Overloaded",)


@pytest.mark.parametrize(
    "second",
    [
        {"inputs": {"x": np.ones((1, 3), np.float32)}},
        {"inputs": {"z": np.ones((1, 2), np.float32)}},
        {"outputs": {"y": np.ones((1, 4))}},
        {"outputs": {"x": np.ones((1, 1))}},
        {"inputs": {"x": np.ones((1, 2), np.float32), "z": np.ones((1, 1), np.float32)}},
        {"inputs": {}},
    ],
)
def test_a_run_unlike_the_one_before_has_columns_of_its_own(second: dict[str, Any]) -> None:
    """Whatever differs, a name, a width or how many: what one run had is not read into the other's rows."""
    scene = Scene()
    plain = batch([request("a")])
    other = batch([request("b")], **second)
    for one in (plain, other, plain):
        scene.tap.on_batch(one)
    assert scene.accounts.totals().offered == 3
    found = {
        found.keys[0]: [(kept.role, kept.name, kept.values.shape[1]) for kept in found.columns]
        for found in scene.end()
    }
    for key, made in (("a", plain), ("b", other)):
        tensors = [(Role.INPUT, made.inputs), (Role.OUTPUT, made.outputs)]
        assert found[key.encode()] == [
            (role, name, array.shape[1]) for role, arrays in tensors for name, array in (arrays or {}).items()
        ]


def test_a_full_ring_drops_and_takes_again() -> None:
    """Rows beyond the ring's bounds are dropped by `ring_full`, a single large batch is still taken."""
    scene = Scene(ring_rows=4)
    scene.tap.on_batch(batch([request("large")], rows=[9]))
    scene.tap.on_batch(batch([request("late")]))
    assert scene.log.status().ring_rows == 9
    (found,) = scene.end()
    assert found.keys == (b"large",) * 9
    assert scene.accounts.totals().dropped == {"ring_full": 1}


def test_the_ring_is_bounded_by_whole_buffers() -> None:
    """A view is charged the buffer that it keeps alive, a request what it was received in."""
    buffer = np.zeros((10_000, 2), np.float32)
    scene = Scene(ring_bytes=100_000)
    scene.tap.on_batch(batch([request("a")], inputs={"x": buffer[:1]}))
    assert scene.log.status().ring_bytes >= buffer.nbytes
    scene.tap.on_batch(batch([request("b", received_bytes=50_000)]))
    assert scene.accounts.totals().dropped == {"ring_full": 1}
    scene.end()


def test_what_comes_after_the_end_is_counted() -> None:
    """A batch that ends after the log was closed is dropped by `shutdown`."""
    scene = Scene()
    scene.end()
    scene.tap.on_batch(batch([request("a"), request("b")]))
    assert scene.accounts.totals().dropped == {"shutdown": 2}
    assert scene.accounts.totals().waiting == 0


def test_what_is_not_encoded_in_the_grace_is_counted() -> None:
    """Without any time left rows are dropped by `shutdown`, and produced all the same."""
    scene = Scene()
    scene.tap.on_batch(batch([request("a"), request("b")]))
    scene.tap.close()
    scene.log.close(-1.0)
    assert scene.accounts.totals().waiting == 2  # never started
    for plans in ({}, {VERSION: _plan()}):
        scene = Scene(linger_s=60.0)
        scene.tap.plans = plans
        scene.log.start()
        scene.tap.on_batch(batch([request("a", "stable"), request("b")], rows=[1, 2]))
        scene.tap.close()
        scene.log.close(-1.0)
        assert scene.accounts.totals().dropped == {"shutdown": 3}
        assert {key[2]: rows for key, rows in scene.accounts.by_stream().items()} == {"stable": 1, "": 2}


def test_a_client_that_went_is_no_failure() -> None:
    """Rows of cancelled requests are sampled as any other, with their status."""
    policy = ModelPolicy(sampling=SamplingOptions(ratio=0.0))
    scene = Scene(policy)
    scene.tap.on_batch(batch([request("a"), request("b")], errors={0: Cancelled("gone")}))
    scene.tap.on_rejected(VERSION, request("c"), Cancelled("gone"))
    assert scene.end() == []
    assert scene.accounts.totals().dropped == {"sampled": 3}


def test_a_model_without_a_log_costs_and_counts_nothing() -> None:
    """Nothing is offered where the policy says so."""
    scene = Scene(ModelPolicy(enabled=False))
    scene.tap.on_batch(batch([request("a")]))
    scene.tap.on_rejected(VERSION, request("b"), Overloaded("full"))
    assert scene.end() == []
    assert scene.accounts.totals().offered == 0


def test_parts_of_a_batch_that_are_kept_are_their_own_rows() -> None:
    """Rows are taken from where their requests stand in the batch, also when others are left out."""
    scene = Scene(ModelPolicy(sampling=SamplingOptions(ratio=0.0)))
    requests = [request("a"), request("b", "canary"), request("c"), request("d", "canary")]
    scene.tap.on_batch(batch(requests, rows=[2, 2, 1, 1]))
    (found,) = scene.end()
    assert found.keys == (b"b", b"b", b"d")
    assert column(found, "x").values.tolist() == [[4, 5], [6, 7], [10, 11]]
    assert scene.accounts.totals().dropped == {"sampled": 3}


def test_a_tensor_shared_by_a_batch_is_every_rows() -> None:
    """An input without a batch axis has its one value in every row; another axis is turned round."""
    signature = ModelSignature(
        (
            TensorSpec("x", Datatype.FP32, (2, -1), batch_axis=1),
            TensorSpec("rate", Datatype.FP32, (1,), batch_axis=None),
        ),
        (TensorSpec("y", Datatype.FP64, (-1, 1)),),
    )
    scene = Scene(signature=signature)
    inputs = {"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "rate": np.array([8], np.float32)}
    scene.tap.on_batch(batch([request("a"), request("b"), request("c")], inputs=inputs))
    (found,) = scene.end()
    assert column(found, "x").values.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert column(found, "rate").values.tolist() == [[8], [8], [8]]


def test_padding_is_not_logged() -> None:
    """Rows that only fill a batch up are nobody's."""
    made = batch([request("a")], inputs={"x": np.ones((8, 2), np.float32)}, outputs={"y": np.ones((8, 1))})
    scene = Scene()
    scene.tap.on_batch(made)
    (found,) = scene.end()
    assert found.rows == 1


def test_large_entries_are_cut_into_frames() -> None:
    """A batch of many rows becomes frames of about the size asked for, in order."""
    scene = Scene(max_batch_bytes=4096)
    scene.tap.on_batch(batch([request(f"k{n}") for n in range(400)]))
    found = scene.end()
    assert len(found) > 5
    assert [key for each in found for key in each.keys] == [b"k%d" % n for n in range(400)]
    assert all(len(frame.data) < 8192 for frame in scene.kept.frames)


def test_a_policy_that_does_not_fit_lets_nothing_out() -> None:
    """A rule for a tensor that the model has not protects nothing: its rows are dropped by `redaction`."""
    signature = ModelSignature(
        (TensorSpec("x", Datatype.FP32, (-1, 2)),), (TensorSpec("y", Datatype.FP64, (-1, 1)),)
    )
    policy = ModelPolicy(inputs={"X": TensorRule(Rule.DROP)})
    for scene in (Scene(policy, signature), Scene(policy, None)):
        scene.tap.on_batch(batch([request("a"), request("b")]))
        assert scene.end() == []
        assert scene.accounts.totals().dropped == {"redaction": 2}


def test_a_long_key_is_no_key() -> None:
    """It is hashed and sampled whole, but not logged; a missing one is told apart by its hash alone."""
    scene = Scene()
    scene.tap.on_batch(batch([request("k" * 2000), request(), request()]))
    (found,) = scene.end()
    assert found.keys == (b"", b"", b"")
    assert len(set(found.key_hashes.tolist())) == 3


def test_a_hint_thins_what_follows() -> None:
    """A reader that cannot follow has fewer rows sent, each with more weight."""
    scene = Scene()
    scene.log.hint(0.25)
    requests = [InferRequest(model_name="fake", request_id=f"k{n}", inputs=()) for n in range(2000)]
    scene.tap.on_batch(batch(requests))
    found = scene.end()
    assert {float(weight) for each in found for weight in each.weights} == {4.0}
    assert 350 < sum(each.rows for each in found) < 650


SHAPES = st.lists(
    st.tuples(
        st.sampled_from(["well", "well", "well", "padded", "wide", "failed", "short", "rejected", "other"]),
        st.lists(st.integers(1, 3), min_size=1, max_size=3),
    ),
    min_size=2,
    max_size=30,
)


@given(events=SHAPES, cuts=st.sets(st.integers(1, 29)), counted=st.booleans())
def test_entries_make_the_same_rows_however_many_are_taken_together(
    events: list[tuple[str, list[int]]], cuts: set[int], counted: bool
) -> None:
    """Runs that are looked at together come to what each comes to alone."""
    entries = [_entry(number, *event, counted=counted) for number, event in enumerate(events)]
    bounds = sorted({0, *(cut for cut in cuts if cut < len(entries)), len(entries)})
    slices = [entries[start:end] for start, end in pairwise(bounds)]
    alone = _rows_of([[entry] for entry in entries], counted=counted)
    assert _rows_of(slices, counted=counted) == alone
    assert _rows_of(slices, counted=counted, copied=True) == alone


def _entry(number: int, kind: str, rows: list[int], *, counted: bool) -> Ran | Rejected:
    requests = [request(f"{number}/{place}", arrived_s=1.0) for place in range(len(rows))]
    if kind == "rejected":
        return Rejected(VERSION, requests[0], Overloaded("full"), 10**9 + number, 2.0, 100)
    made = batch(requests, rows=rows, error=BackendError("broken") if kind == "failed" else None)
    total, x = made.rows, np.full((made.rows, 3 if kind == "wide" else 2), number, np.float32)
    if kind == "padded":
        x = np.concatenate([x, x[:1] * 0])
    made.inputs = {"x": x}
    if kind != "failed":
        shape = (total - (kind == "short"), 1) if counted else (number % 3 + 1,)
        made.outputs = {"y": np.full(shape, number, np.float64)}
    if kind == "other":
        made.version = VersionId("fake", 4, "other")
    return Ran(made, 10**9 + number, 2.0, total, 1000)


def _copy(ring: Ring, encoder: Encoder, entry: Ran | Rejected) -> bool:
    """Copy a run as the request path does, if that can be done."""
    plan = encoder.plans.get(entry.batch.version) if isinstance(entry, Ran) else None
    if plan is None or not isinstance(entry, Ran):
        return False
    return ring.copy(plan, entry.batch, entry.done_ns, entry.done_s) == entry.rows


def _rows_of(
    slices: list[list[Ran | Rejected]], *, counted: bool, copied: bool = False
) -> tuple[object, ...]:
    """Return what is in the rows that these entries come to, and what became of the others."""
    spec = TensorSpec("y", Datatype.FP64, (-1, 1) if counted else (-1,), 0 if counted else None)
    signature = ModelSignature((TensorSpec("x", Datatype.FP32, (-1, -1), 0),), (spec,))
    signatures = dict.fromkeys((VERSION, VersionId("fake", 4, "other")), signature)
    accounts, found = Accounts(), list[RowBatch]()
    policies = Policies(ModelPolicy())
    encoder = Encoder(policies, signatures, accounts, found.append, EncoderOptions(1 << 20))
    ring = Ring(10_000, 100 << 20)
    for entries in slices:
        held = [entry for entry in entries if not (copied and _copy(ring, encoder, entry))]
        for entry in held:
            assert ring.offer(entry)
        for taken in ring.drain(everything=True):
            encoder.take(taken)
    encoder.flush()
    assert ring.rows == ring.nbytes == 0
    rows = {
        (key, index, each.version): (
            each.statuses[each.status_codes[at]],
            each.done_ns[at],
            each.arrived_ns[at],
            each.queue_us[at],
            each.infer_us[at],
            [(c.name, c.role, c.values[at].tolist()) for c in each.columns],
        )
        for each in found
        for at, (key, index) in enumerate(zip(each.keys, each.row_indexes.tolist(), strict=True))
    }
    assert len(rows) == sum(each.rows for each in found)
    return rows, accounts.by_stream(), accounts.totals().dropped


def test_rows_without_a_common_length_are_logged_together() -> None:
    """A model that is not batched may take as much as it likes each time."""
    x, y = TensorSpec("x", Datatype.FP32, (-1,), None), TensorSpec("y", Datatype.FP64, (-1,), None)
    scene = Scene(signature=ModelSignature((x,), (y,)))
    for length in (3, 5, 3, 4):
        inputs = {"x": np.ones(length, np.float32)}
        scene.tap.on_batch(batch([request(str(length))], inputs, {"y": np.ones(1)}))
    (found,) = scene.end()
    assert sorted(found.keys) == [b"3", b"3", b"4", b"5"]
    assert column(found, "x.mean").values.ravel().tolist() == [1, 1, 1, 1]
    assert scene.accounts.totals().dropped == {}


def test_accounting_that_a_frame_has_told_is_not_told_again() -> None:
    """A lane without losses of its own gets frames alone; what is news without rows gets one of its own."""
    scene = Scene(ModelPolicy(sampling=SamplingOptions(ratio=0.0)))
    scene.tap.on_batch(batch([request("a")]))
    scene.end()
    assert [frame.rows for frame in scene.kept.frames] == [0]
    scene = Scene()
    scene.tap.on_batch(batch([request("a")]))
    scene.end()
    assert [frame.rows for frame in scene.kept.frames] == [1]


@pytest.mark.parametrize(
    ("policy", "copied"),
    [
        (ModelPolicy(), True),
        (ModelPolicy(inputs={"x": TensorRule(Rule.DROP)}), True),
        (ModelPolicy(outliers=(OutlierRule("x", high=0.5),)), True),
        (ModelPolicy(sampling=SamplingOptions(key=Source("header", "x-key"))), True),
        (ModelPolicy(sampling=SamplingOptions(subject=Source("header", "x-user"), secret=b"s")), False),
        (ModelPolicy(sampling=SamplingOptions(pinned=Source("header", "x-pin"))), False),
        (ModelPolicy(segments=(SegmentRule("region", Source("header", "x-region")),)), False),
    ],
)
def test_copied_rows_are_those_of_runs_that_were_kept(policy: ModelPolicy, copied: bool) -> None:
    """Runs are copied where nothing else of their requests is wanted, and come to the same rows."""
    headers = {"x-key": "k", "x-user": "anna", "x-pin": "1", "x-region": "eu"}
    runs = [batch([request(f"r{n}", "stable", headers=headers)], rows=[2]) for n in range(3)]
    specs = (TensorSpec("x", Datatype.FP32, (-1, 2), 0),), (TensorSpec("y", Datatype.FP64, (-1, 1), 0),)
    kept, copying = (Scene(policy, ModelSignature(*specs)) for _ in range(2))
    copying.start()
    copying.tap.on_batch(runs[0])
    copying.wait_for_rows(2)
    assert (VERSION in copying.tap.plans) is copied
    for run in runs:
        kept.tap.on_batch(run)
    for run in runs[1:]:
        copying.tap.on_batch(run)
    assert _told(copying.end()) == _told(kept.end())
    assert copying.accounts.totals().framed == 6


def _told(batches: list[RowBatch]) -> list[tuple[object, ...]]:
    """What rows say of their requests, but for the times, in any order of the frames."""
    return sorted(
        (
            str(each.keys[at]),
            int(each.row_indexes[at]),
            each.arms[each.arm_codes[at]],
            int(each.key_hashes[at]),
            int(each.reasons[at]),
            int(each.subject_hashes[at]),
            *((c.name, c.role.value, c.values[at].tolist(), c.dictionary) for c in each.columns),
        )
        for each in batches
        for at in range(each.rows)
    )


def test_copies_count_against_the_bounds_of_the_ring() -> None:
    """What is copied is charged until it was encoded, and not taken where there is no room."""
    scene = Scene(linger_s=60.0, ring_rows=5)
    encoder_plan = _plan()
    scene.tap.plans = {VERSION: encoder_plan}
    scene.tap.on_batch(batch([request("a"), request("b")], rows=[2, 2]))
    assert scene.log.status().ring_rows == 4
    assert scene.log.status().ring_bytes > 4 * encoder_plan.row_bytes
    scene.tap.on_batch(batch([request("c")], rows=[2]))
    assert scene.accounts.totals().dropped == {"ring_full": 2}
    scene.end()
    assert (scene.log.status().ring_rows, scene.log.status().ring_bytes) == (0, 0)
    assert scene.accounts.totals().framed == 4


def test_runs_too_wide_to_be_copied_are_kept() -> None:
    """The event loop's time is not spent on large rows, nor on objects."""
    wide = np.zeros((1, MAX_ROW_BYTES // 4 + 1), np.float32)
    words = np.array([[b"word"]], object)
    for x in (wide, words):
        encoder = _encoder()
        run = batch([request("a")], inputs={"x": x})
        encoder.take([Ran(run, 1, 2.0, 1, 100)])
        assert not encoder.plans or not encoder.plans[VERSION].inputs.logged


def test_a_version_that_keeps_changing_keeps_the_last_of_a_few_plans() -> None:
    """Plans are not made anew for ever where no run is like the one before."""
    encoder = Encoder(
        Policies(ModelPolicy()), {}, Accounts(), list[RowBatch]().append, EncoderOptions(1 << 20)
    )
    plans = set()
    for width in range(1, 3 * MAX_PLANS):
        run = batch([request("a")], inputs={"x": np.zeros((1, width), np.float32)})
        encoder.take([Ran(run, 1, 2.0, 1, 100)])
        plans.add(encoder.plans[VERSION])
    assert len(plans) == MAX_PLANS


def _encoder() -> Encoder:
    """An encoder whose batches nobody looks at."""
    return Encoder(Policies(ModelPolicy()), {}, Accounts(), list[RowBatch]().append, EncoderOptions(1 << 20))


def _plan() -> CopyPlan:
    """The plan of runs as `batch` makes them."""
    encoder = Encoder(
        Policies(ModelPolicy()), {}, Accounts(), list[RowBatch]().append, EncoderOptions(1 << 20)
    )
    encoder.take([Ran(batch([request("a")]), 1, 2.0, 1, 100)])
    return encoder.plans[VERSION]
