"""Assembly of batches and splitting of outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gateway.batching.assembly import Assembler, Assembly
from gateway.batching.grouping import Grouper
from gateway.batching.splitting import SMALL_BYTES, Splitter
from gateway.batching.tickets import Admission, Job, Ticket, cut
from gateway.core.errors import BackendError
from gateway.core.options import BatchingOptions, CutRule, PadRule
from gateway.core.types import (
    Array,
    Datatype,
    InferRequest,
    ModelSignature,
    RequestedOutput,
    Tensor,
    TensorSpec,
)

ADMISSION = Admission(None, 0, "", None, 0)


class Bench:
    """Assembler and splitter of one signature, and jobs for them."""

    def __init__(self, inputs: list[TensorSpec], outputs: list[TensorSpec], **options: Any) -> None:
        self.signature = ModelSignature(tuple(inputs), tuple(outputs))
        self.options = BatchingOptions(**options)
        self.assembler = Assembler(self.signature, self.options)
        self.splitter = Splitter("m", self.signature, self.options)
        self.grouper = Grouper("m", self.signature, self.options)
        self.datatypes = {spec.name: spec.datatype for spec in inputs}

    def jobs(self, most_rows: int = 1000, asked: tuple[str, ...] = (), **arrays: Array) -> list[Job]:
        """The jobs of one request."""
        request = InferRequest(
            model_name="m",
            inputs=tuple(Tensor(name, self.datatypes[name], array) for name, array in arrays.items()),
            outputs=tuple(RequestedOutput(name) for name in asked),
        )
        ticket = Ticket(request, self.grouper.layout(request), 0.0, lambda _: None)
        ticket.jobs = cut(ticket, ADMISSION, most_rows)
        return list(ticket.jobs)

    def assemble(self, *members: dict[str, Array]) -> Assembly:
        return self.assembler.assemble([job for member in members for job in self.jobs(1000, (), **member)])


def spec(name: str, *shape: int, axis: int | None = 0, datatype: Datatype = Datatype.FP32) -> TensorSpec:
    return TensorSpec(name, datatype, shape, axis)


def f32(values: Any) -> Array:
    return np.array(values, np.float32)


def assert_fit_for_a_backend(array: Array) -> None:
    flags = array.flags
    assert (flags.c_contiguous, flags.aligned, flags.owndata, flags.writeable) == (True, True, True, False)


def unaligned(array: Array) -> Array:
    """The same values as a read-only view at an odd address."""
    buffer = bytearray(array.nbytes + 1)
    buffer[1:] = array.tobytes()
    view = np.frombuffer(buffer, array.dtype, offset=1).reshape(array.shape)
    view.flags.writeable = False
    return view


# -- assembly ----------------------------------------------------------------------------------------------


def test_rows_of_all_members_follow_each_other() -> None:
    """The batch holds each member's rows in order, for every input, whatever order they came in."""
    bench = Bench([spec("a", -1, 2), spec("b", -1)], [spec("y", -1)])
    assembly = bench.assemble(
        {"a": f32([[1, 2]]), "b": f32([3])}, {"b": f32([6, 7]), "a": f32([[4, 4], [5, 5]])}
    )
    assert assembly.inputs["a"].tolist() == [[1, 2], [4, 4], [5, 5]]
    assert assembly.inputs["b"].tolist() == [3, 6, 7]
    assert (assembly.rows, assembly.padded_rows, assembly.elements, assembly.pad_elements) == (3, 3, 9, 0)


@pytest.mark.parametrize("members", [1, 2])
def test_a_backend_only_gets_aligned_owned_read_only_arrays(members: int) -> None:
    """Unaligned views over a received buffer are copied, even for a batch of one."""
    bench = Bench([spec("a", -1, 3), spec("sr", axis=None, datatype=Datatype.INT64)], [spec("y", -1)])
    member = {"a": unaligned(f32([[1, 2, 3]])), "sr": np.frombuffer(b"\x08" + bytes(7), np.int64).reshape(())}
    assert not member["a"].flags.aligned
    for array in bench.assemble(*[member] * members).inputs.values():
        assert_fit_for_a_backend(array)


def test_an_array_that_is_fit_already_is_not_copied() -> None:
    """An owned, aligned, contiguous, read-only array is passed on as it is; a writable one is not."""
    bench = Bench([spec("a", -1, 2)], [spec("y", -1)])
    fixed, writable = f32([[1, 2]]), f32([[1, 2]])
    fixed.flags.writeable = False
    assert bench.assemble({"a": fixed}).inputs["a"] is fixed
    assert not np.shares_memory(bench.assemble({"a": writable}).inputs["a"], writable)
    assert writable.flags.writeable


def test_rows_are_padded_with_zeros_up_to_the_next_allowed_size() -> None:
    """Three rows run as four; BYTES are padded with empty strings; the waste is counted."""
    text = TensorSpec("t", Datatype.BYTES, (-1,))
    bench = Bench([spec("a", -1, 2), text], [spec("y", -1)], allowed_rows=(1, 4, 8))
    member = {"a": f32([[1, 1]] * 3), "t": np.array([b"a", b"b", b"c"], object)}
    assembly = bench.assemble(member)
    assert assembly.inputs["a"].tolist() == [[1, 1]] * 3 + [[0, 0]]
    assert assembly.inputs["t"].tolist() == [b"a", b"b", b"c", b""]
    assert (assembly.rows, assembly.padded_rows, assembly.elements, assembly.pad_elements) == (3, 4, 12, 3)


def test_variable_axes_are_padded_to_their_bucket_or_the_longest_member() -> None:
    """Each padded axis is filled with its declared value behind the member's own; spare rows are zeros."""
    bucketed = PadRule(input="a", axis=1, buckets=(4, 8), value=-1)
    bench = Bench([spec("a", -1, -1)], [spec("y", -1)], pad=(bucketed,), allowed_rows=(3,))
    assembly = bench.assemble({"a": f32([[1, 2, 3]])}, {"a": f32([[4]])})
    assert assembly.inputs["a"].tolist() == [[1, 2, 3, -1], [4, -1, -1, -1], [0, 0, 0, 0]]
    assert (assembly.elements, assembly.pad_elements) == (12, 8)
    longest = Bench([spec("a", -1, -1)], [spec("y", -1)], pad=(PadRule(input="a", axis=1, value=7),))
    assert longest.assemble({"a": f32([[1, 2, 3]])}, {"a": f32([[4]])}).inputs["a"].tolist() == [
        [1, 2, 3],
        [4, 7, 7],
    ]


def test_two_padded_axes_take_each_their_own_value() -> None:
    """Behind the last column stands the column rule's value, below the last line the line rule's."""
    pad = (
        PadRule(input="a", axis=1, buckets=(2,), value=5),
        PadRule(input="a", axis=2, buckets=(3,), value=6),
    )
    bench = Bench([spec("a", -1, -1, -1)], [spec("y", -1)], pad=pad)
    assert bench.assemble({"a": f32([[[1, 2]]])}).inputs["a"].tolist() == [[[1, 2, 6], [5, 5, 6]]]


def test_an_input_without_batch_axis_is_passed_once() -> None:
    """What the batch shares keeps its shape, whatever the number of members and allowed sizes."""
    bench = Bench([spec("a", -1), spec("sr", axis=None)], [spec("y", -1)], allowed_rows=(4,))
    assembly = bench.assemble({"a": f32([1]), "sr": f32(8)}, {"a": f32([2]), "sr": f32(8)})
    assert assembly.inputs["sr"].shape == ()
    assert assembly.inputs["a"].tolist() == [1, 2, 0, 0]


def test_an_optional_input_that_nobody_sent_is_left_out() -> None:
    """The backend sees exactly the inputs that the requests brought."""
    bench = Bench([spec("a", -1), TensorSpec("b", Datatype.FP32, (-1,), optional=True)], [spec("y", -1)])
    assert list(bench.assemble({"a": f32([1])}).inputs) == ["a"]


def test_a_model_without_batch_axis_gets_its_inputs_as_they_are() -> None:
    """Allowed sizes mean nothing to it."""
    bench = Bench([spec("a", -1, axis=None)], [spec("y", -1, axis=None)], allowed_rows=(4,))
    assembly = bench.assemble({"a": f32([1, 2, 3])})
    assert assembly.inputs["a"].tolist() == [1, 2, 3]
    assert (assembly.rows, assembly.padded_rows) == (1, 1)


# -- splitting ---------------------------------------------------------------------------------------------

Y, Z = spec("y", -1, 1), spec("z", 2, -1, axis=1)


def test_members_get_the_outputs_they_asked_for_in_their_order() -> None:
    """All in the signature's order when none is named; rows are found on each output's own axis."""
    bench = Bench([spec("a", -1)], [Y, Z])
    outputs = {"y": f32([[0], [1], [2]]), "z": f32([[0, 1, 2], [10, 11, 12]])}
    (every,) = bench.jobs(a=f32([0, 0]))
    (chosen,) = bench.jobs(a=f32([0]), asked=("z", "y"))
    first = bench.splitter.split(outputs, {}, every, 0)
    second = bench.splitter.split(outputs, {}, chosen, 2)
    assert [(t.name, t.array.tolist()) for t in first] == [("y", [[0], [1]]), ("z", [[0, 1], [10, 11]])]
    assert [(t.name, t.array.tolist()) for t in second] == [("z", [[2], [12]]), ("y", [[2]])]


def test_only_outputs_that_somebody_asked_for_are_computed() -> None:
    """The union of what is asked for, in the signature's order; everything when somebody names none."""
    bench = Bench([spec("a", -1)], [Y, Z, spec("w", -1)])
    requests = [bench.jobs(a=f32([0]), asked=asked)[0].ticket.request for asked in (("w",), ("y", "w"), ())]
    assert bench.splitter.wanted(requests[:2]) == ("y", "w")
    assert bench.splitter.wanted(requests) == ("y", "z", "w")


def test_small_slices_are_copied_and_large_ones_are_views() -> None:
    """A few kept bytes do not keep the whole batch's output alive."""
    bench = Bench([spec("a", -1)], [spec("y", -1, -1)])
    (job,) = bench.jobs(a=f32([0]))
    for features, shared in [(SMALL_BYTES // 4 - 1, False), (SMALL_BYTES // 4, True)]:
        output = np.zeros((2, features), np.float32)
        (tensor,) = bench.splitter.split({"y": output}, {}, job, 1)
        assert np.shares_memory(tensor.array, output) is shared


def test_less_than_half_of_an_output_is_copied_out() -> None:
    """A member of many does not keep the whole batch's output alive, however large its own part."""
    bench = Bench([spec("a", -1)], [spec("y", -1, -1)])
    (job,) = bench.jobs(a=f32([0]))
    output = np.zeros((3, SMALL_BYTES), np.float32)
    (tensor,) = bench.splitter.split({"y": output}, {}, job, 1)
    assert tensor.array.base is None


def test_a_sole_member_gets_the_output_itself() -> None:
    """Nothing is copied where nothing else is kept alive."""
    bench = Bench([spec("a", -1)], [Y])
    output = f32([[1]])
    (tensor,) = bench.splitter.split({"y": output}, {}, bench.jobs(a=f32([0]))[0], 0)
    assert tensor.array is output


def test_padding_is_cut_off_the_output_in_proportion_rounded_up() -> None:
    """An axis half as long as the input's gives back half of the unpadded size, rounded up."""
    rule = CutRule(output="y", axis=1, input="a", input_axis=1)
    bench = Bench(
        [spec("a", -1, -1)], [spec("y", -1, -1)], cut=(rule,), pad=(PadRule(input="a", axis=1, buckets=(8,)),)
    )
    (job,) = bench.jobs(a=f32([[1, 2, 3]]))
    inputs, output = {"a": np.zeros((2, 8), np.float32)}, np.arange(8, dtype=np.float32).reshape(2, 4)
    (tensor,) = bench.splitter.split({"y": output}, inputs, job, 1)
    assert tensor.array.tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (f32([[1]] * 3), r"output 'y' of model 'm' has shape \[3, 1\]: expected 2 rows along axis 0"),
        (f32(1), r"output 'y' of model 'm' has shape \[\]: expected 2 rows along axis 0"),
        (None, "model 'm' did not return output 'y'"),
    ],
)
def test_a_wrong_number_of_rows_is_the_backends_error(output: Array | None, message: str) -> None:
    """The message names the output, what was got and what was expected."""
    bench = Bench([spec("a", -1)], [Y])
    with pytest.raises(BackendError, match=message):
        bench.splitter.check({} if output is None else {"y": output}, ["y"], 2)


# -- there and back ----------------------------------------------------------------------------------------

DATATYPES = [d for d in Datatype if d is not Datatype.BYTES]


def values(datatype: Datatype, shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    if datatype is Datatype.BYTES:
        return npst.arrays(object, shape, elements=st.binary(max_size=4), fill=st.nothing())
    if datatype is Datatype.BF16:
        return npst.arrays(np.float32, shape, elements=st.integers(-99, 99).map(float)).map(
            lambda array: array.astype(datatype.dtype)
        )
    return npst.arrays(datatype.dtype, shape)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Datatype, int, tuple[int, ...], list[Array]]:
    datatype = draw(st.sampled_from(list(Datatype)))
    trailing = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    axis = draw(st.integers(0, len(trailing)))
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    return datatype, axis, trailing, [
        draw(values(datatype, (*trailing[:axis], rows, *trailing[axis:]))) for rows in sizes
    ]  # fmt: skip


@given(batches(), st.sampled_from([(), (2, 32)]), st.integers(1, 3))
def test_every_member_gets_its_own_rows_back(
    batch: tuple[Datatype, int, tuple[int, ...], list[Array]], allowed: tuple[int, ...], most_rows: int
) -> None:
    """An identity model gives each request what it sent, for any datatype, shape, axis, rows and cutting."""
    datatype, axis, trailing, arrays = batch
    shape = (*trailing[:axis], -1, *trailing[axis:])
    bench = Bench(
        [TensorSpec("a", datatype, shape, axis)],
        [TensorSpec("y", datatype, shape, axis)],
        allowed_rows=allowed,
    )
    jobs = [job for array in arrays for job in bench.jobs(most_rows, a=array)]
    assembly = bench.assembler.assemble(jobs)
    assert_fit_for_a_backend(assembly.inputs["a"])
    outputs = {"y": assembly.inputs["a"]}
    bench.splitter.check(outputs, ["y"], assembly.padded_rows)
    start, got = 0, dict[Ticket, list[Array]]()
    for job in jobs:
        (tensor,) = bench.splitter.split(outputs, assembly.inputs, job, start)
        got.setdefault(job.ticket, []).append(tensor.array)
        start += job.size
    for array, parts in zip(arrays, got.values(), strict=True):
        np.testing.assert_array_equal(np.concatenate(parts, axis), array)
