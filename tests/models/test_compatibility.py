"""Which changes of a signature break clients, and whose clients a version takes over."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.options import BatchingOptions
from gateway.core.types import (
    Datatype,
    InferRequest,
    ModelSignature,
    RequestedOutput,
    Tensor,
    TensorSpec,
    VersionState,
)
from gateway.models.compatibility import breaking_changes
from gateway.models.policy import ReadyVersion, clients_taken_over
from gateway.models.validation import RequestValidator
from gateway.testing import FakeLoadedModel
from tests.models.providers import FakeProvider, registered
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from gateway.core.options import LoadOptions
    from gateway.core.types import Artifact
    from gateway.models.manager import ModelManager

X = TensorSpec("x", Datatype.FP32, (-1, 4))
MASK = TensorSpec("mask", Datatype.INT64, (-1, 4), optional=True)
Y = TensorSpec("y", Datatype.FP32, (-1, 2))
NOW = ModelSignature((X, MASK), (Y,))


def replaced(**changes: object) -> ModelSignature:
    """NOW with other tensors: name -> a spec in its place, or None to leave it out; new names are inputs."""
    inputs = [changes.pop(s.name, s) for s in NOW.inputs]
    outputs = [changes.pop(s.name, s) for s in NOW.outputs]
    added = list(changes.values())
    return ModelSignature(
        tuple(s for s in (*inputs, *added) if isinstance(s, TensorSpec)),
        tuple(s for s in outputs if isinstance(s, TensorSpec)),
    )


def like(spec: TensorSpec, **fields: object) -> TensorSpec:
    return dataclasses.replace(spec, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "new",
    [
        NOW,
        ModelSignature((MASK, X), (Y,)),
        replaced(x=like(X, shape=(-1, -1))),
        replaced(x=like(X, optional=True)),
        replaced(extra=like(X, name="extra", optional=True)),
        ModelSignature(NOW.inputs, (like(Y, name="scores"), Y)),
    ],
    ids=["same", "order", "variable input", "optional input", "input added", "output added"],
)
def test_widening_breaks_nothing(new: ModelSignature) -> None:
    """Whatever takes every request as before, and answers what was promised, may follow."""
    assert breaking_changes(NOW, new) == []


@pytest.mark.parametrize(
    ("new", "change"),
    [
        (replaced(x=like(X, name="z")), "input 'x' is gone (renamed to 'z'?)"),
        (replaced(mask=None), "input 'mask' is gone"),
        (replaced(z=like(X, name="z", shape=(-1, 9))), "input 'z' (FP32 [-1,9]) is new and required"),
        (replaced(mask=like(MASK, optional=False)), "input 'mask' was optional and is required now"),
        (replaced(x=like(X, datatype=Datatype.FP16)), "input 'x' was FP32 and is FP16 now"),
        (replaced(x=like(X, shape=(-1, 5))), "input 'x' had shape [-1,4] and has [-1,5] now"),
        (replaced(x=like(X, shape=(1, 4))), "input 'x' had shape [-1,4] and has [1,4] now"),
        (replaced(x=like(X, shape=(-1, 4, 1))), "input 'x' had 2 axes, [-1,4], and has 3 now, [-1,4,1]"),
        (replaced(x=like(X, batch_axis=None)), "input 'x' had batch axis 0 and has no batch axis now"),
        (replaced(y=like(Y, name="scores")), "output 'y' is gone (renamed to 'scores'?)"),
        (replaced(y=like(Y, datatype=Datatype.FP64)), "output 'y' was FP32 and is FP64 now"),
        (replaced(y=like(Y, shape=(-1, 3))), "output 'y' had shape [-1,2] and has [-1,3] now"),
        (replaced(y=like(Y, shape=(-1, -1))), "output 'y' had shape [-1,2] and has [-1,-1] now"),
        (replaced(y=like(Y, shape=(-1,))), "output 'y' had 2 axes, [-1,2], and has 1 now, [-1]"),
        (replaced(y=like(Y, batch_axis=1)), "output 'y' had batch axis 0 and has batch axis 1 now"),
        (
            dataclasses.replace(NOW, decoupled=True),
            "requests were answered with one response and are with any number of responses now",
        ),
    ],
)
def test_each_breaking_change_is_named(new: ModelSignature, change: str) -> None:
    """A request or answer that would no longer fit is named, with both sides."""
    assert breaking_changes(NOW, new)[0] == change


def test_a_variable_output_may_become_fixed() -> None:
    """A client that takes any size takes one; a variable input must not become fixed."""
    now = ModelSignature((like(X, shape=(-1, -1)),), (like(Y, shape=(-1, -1)),))
    assert breaking_changes(now, ModelSignature(now.inputs, (Y,))) == []
    assert breaking_changes(now, ModelSignature((X,), now.outputs)) == [
        "input 'x' had shape [-1,-1] and has [-1,4] now"
    ]


def test_a_first_batched_input_breaks_requests_without_it() -> None:
    """An optional input with rows, where none had any, leaves requests without it without rows."""
    now = ModelSignature((like(X, batch_axis=None),), (Y,))
    assert breaking_changes(now, ModelSignature((*now.inputs, MASK), (Y,))) == [
        "no input had a batch axis, and one has now"
    ]


def test_every_change_is_listed() -> None:
    """Several changes at once are all told, inputs before outputs."""
    changes = breaking_changes(NOW, replaced(x=like(X, datatype=Datatype.FP16), mask=None, y=None))
    assert [change.split("'")[1] for change in changes] == ["x", "mask", "y"]


DATATYPES = st.sampled_from([Datatype.FP32, Datatype.INT64])


@st.composite
def tensors(draw: st.DrawFn, names: str) -> tuple[TensorSpec, ...]:
    def one(name: str) -> TensorSpec:
        shape = tuple(draw(st.lists(st.sampled_from([-1, 1, 2]), min_size=1, max_size=2)))
        axis = draw(st.sampled_from([0, None]))
        return TensorSpec(name, draw(DATATYPES), shape, axis, draw(st.booleans()))

    return tuple(one(name) for name in draw(st.sets(st.sampled_from(names), min_size=1)))


SIGNATURES = st.builds(ModelSignature, tensors("abc"), tensors("yz"))


def wider(signature: ModelSignature) -> st.SearchStrategy[ModelSignature]:
    """Signatures that differ little, so that many pairs are compatible."""

    def vary(spec: TensorSpec) -> st.SearchStrategy[TensorSpec]:
        shapes = st.tuples(*(st.sampled_from([size, -1, 2]) for size in spec.shape))
        return st.one_of(
            st.just(spec),
            st.builds(lambda shape, o: like(spec, shape=shape, optional=o), shapes, st.booleans()),
        )

    return st.builds(
        ModelSignature, st.tuples(*map(vary, signature.inputs)), st.tuples(*map(vary, signature.outputs))
    )


PAIRS = SIGNATURES.flatmap(lambda now: st.tuples(st.just(now), st.one_of(wider(now), SIGNATURES)))


def requests(signature: ModelSignature) -> list[InferRequest]:
    """Every request of few sizes, with and without each tensor: valid ones among them."""
    choices: list[list[Tensor | None]] = []
    for spec in signature.inputs:
        sizes = itertools.product(*([n] if n > 0 else [1, 2] for n in spec.shape))
        arrays = [np.zeros(shape, spec.datatype.dtype) for shape in sizes]
        choices.append([None, *(Tensor(spec.name, spec.datatype, array) for array in arrays)])
    asked = tuple(RequestedOutput(spec.name) for spec in signature.outputs)
    return [
        InferRequest(model_name="m", inputs=tuple(t for t in chosen if t is not None), outputs=asked)
        for chosen in itertools.product(*choices)
    ]


def valid(signature: ModelSignature, request: InferRequest) -> bool:
    validator = RequestValidator("m", signature, BatchingOptions(), implicit_batch=False)
    try:
        validator.check(request)
    except InvalidRequest:
        return False
    return True


@given(PAIRS)
def test_what_was_valid_stays_valid(pair: tuple[ModelSignature, ModelSignature]) -> None:
    """Where nothing is said to break, every request that fits the one signature fits the other."""
    now, new = pair
    assume(not breaking_changes(now, new))
    for request in requests(now):
        assert valid(new, request) or not valid(now, request)
    assert {s.name for s in now.outputs} <= {s.name for s in new.outputs}


@given(PAIRS)
def test_compatibility_has_an_order(pair: tuple[ModelSignature, ModelSignature]) -> None:
    """Every signature follows itself, and two that follow each other promise the same."""
    now, new = pair
    assert breaking_changes(now, now) == []
    if not breaking_changes(now, new) and not breaking_changes(new, now):
        assert {(s.name, s.shape, s.datatype) for s in now.inputs if not s.optional} == {
            (s.name, s.shape, s.datatype) for s in new.inputs if not s.optional
        }


@pytest.mark.parametrize(
    ("number", "since", "ready", "taken"),
    [
        (2, 9, [], []),
        (2, 9, [ReadyVersion(1, 1, withdrawn=True)], [1]),
        (2, 9, [ReadyVersion(1, 1, withdrawn=False)], [1]),
        (1, 9, [ReadyVersion(2, 1, withdrawn=True)], [2]),
        (1, 9, [ReadyVersion(2, 1, withdrawn=False)], []),
        (1, 9, [ReadyVersion(1, 1, withdrawn=True), ReadyVersion(2, 1, withdrawn=False)], [1]),
        (3, 9, [ReadyVersion(1, 1, withdrawn=False), ReadyVersion(2, 1, withdrawn=False)], [2]),
        (2, 1, [ReadyVersion(1, 5, withdrawn=False)], []),
    ],
)
def test_clients_taken_over(number: int, since: int, ready: list[ReadyVersion], taken: list[int]) -> None:
    """Those of its own number, and those without a version when it becomes the highest that stays."""
    assert [version.number for version in clients_taken_over(number, since, ready)] == taken


def signatures(stage: Stage, by_digest: dict[str, ModelSignature]) -> None:
    def make(artifact: Artifact, _options: LoadOptions) -> FakeLoadedModel:
        return FakeLoadedModel(by_digest[artifact.digest])

    stage.backend.make = make


NARROW = replaced(x=like(X, shape=(-1, 5)), y=None, z=like(X, name="z"))
WIDE = replaced(x=like(X, shape=(-1, -1)))


def states(manager: ModelManager) -> dict[int, VersionState]:
    return {status.id.number: status.state for status in manager.index()}


async def test_a_breaking_version_is_refused_until_it_is_allowed(stage: Stage) -> None:
    """The old version serves on, the reason lists every change and what to set; setting it tries again."""
    signatures(stage, {"one": NOW, "two": NARROW})
    one, two = FakeProvider("one"), FakeProvider("two")
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, one)])
        await manager.wait_settled()
        manager.apply("s", [registered("m", 2, two)])
        await manager.wait_settled()
        assert states(manager) == {1: VersionState.READY, 2: VersionState.FAILED}
        assert manager.index()[1].reason == (
            "check: it would break clients of version v1: input 'x' had shape [-1,4] and has [-1,5] now; "
            "input 'z' (FP32 [-1,4]) is new and required; output 'y' is gone. "
            "If that is intended, set allow_breaking: true for the model"
        )
        assert (one.pins, two.pins) == (1, 0)
        manager.apply("s", [registered("m", 2, two)])
        await manager.wait_settled()
        assert two.attempts == 1
        manager.apply("s", [registered("m", 2, two, allow_breaking=True)])
        await manager.wait_settled()
        assert manager.get("m").id.number == 2
        assert (one.pins, two.pins) == (0, 1)


async def test_a_compatible_version_replaces_the_one_before(stage: Stage) -> None:
    """A wider signature takes over without being asked about."""
    signatures(stage, {"one": NOW, "two": WIDE})
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, FakeProvider("one"))])
        await manager.wait_settled()
        manager.apply("s", [registered("m", 2, FakeProvider("two"))])
        await manager.wait_settled()
        assert manager.get("m").id.number == 2


async def test_local_versions_are_swapped_as_they_are(stage: Stage) -> None:
    """A version of a local repository may have any signature, as with Triton."""
    signatures(stage, {"one": NOW, "two": NARROW})
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, "one")])
        await manager.wait_settled()
        manager.apply("s", [wanted("m", 2, "two")])
        await manager.wait_settled()
        assert manager.get("m").id.number == 2


@pytest.mark.parametrize("first", [1, 2])
async def test_versions_wanted_together_do_not_break_each_other(stage: Stage, first: int) -> None:
    """At start all versions of a policy serve, whatever their signatures and whichever is READY first."""
    signatures(stage, {"one": NOW, "two": NARROW})
    versions = [registered("m", 1, FakeProvider("one")), registered("m", 2, FakeProvider("two"))]
    async with stage.manager(load_concurrency=1, fetch_concurrency=1) as manager:
        manager.apply("s", versions if first == 1 else versions[::-1])
        await manager.wait_settled()
        assert manager.ready_versions("m") == (1, 2)
