"""Signatures and batching hints from metadata and configuration."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from gateway.backends.triton.options import Batching
from gateway.backends.triton.signature import ModelFacts, batching_of, differences, read_facts
from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions
from gateway.core.types import Datatype, TensorSpec


def config(max_batch_size: int = 8, **fields: Any) -> Any:
    return model_config_pb2.ModelConfig(max_batch_size=max_batch_size, **fields)


def metadata(*shapes: tuple[str, str, list[int]]) -> Any:
    answer = service_pb2.ModelMetadataResponse(name="m", platform="p", versions=["1", "10", "2"])
    for name, datatype, shape in shapes:
        kept = answer.inputs if name.startswith("x") else answer.outputs
        kept.add(name=name, datatype=datatype, shape=shape)
    return answer


PLAIN = (("x", "FP32", [-1, 2]), ("y", "BYTES", [-1, -1]))


def facts(*, batching: bool = True, **fields: Any) -> ModelFacts:
    if batching:
        fields.setdefault("dynamic_batching", model_config_pb2.ModelDynamicBatching())
    return read_facts(metadata(*PLAIN), config(**fields))


def test_the_first_axis_counts_rows_where_there_are_batches() -> None:
    """Axes of any size stay so; the metadata's shape has the batch axis already."""
    found = facts()
    assert found.signature.inputs == (TensorSpec("x", Datatype.FP32, (-1, 2), 0),)
    assert found.signature.outputs == (TensorSpec("y", Datatype.BYTES, (-1, -1), 0),)
    assert found.signature.batchable
    assert (found.platform, found.versions) == ("p", (1, 2, 10))


def test_without_batches_no_axis_counts_rows() -> None:
    """A model with max_batch_size 0 gives whole shapes."""
    found = read_facts(metadata(("x", "INT64", [3]), ("y", "BF16", [-1])), config(0))
    assert found.signature.inputs == (TensorSpec("x", Datatype.INT64, (3,), None),)
    assert not found.signature.batchable
    assert found.whose_batches is Batching.PASSTHROUGH


def test_optional_inputs_and_decoupled_models() -> None:
    """Both are the configuration's to say."""
    found = read_facts(
        metadata(*PLAIN),
        config(
            input=[model_config_pb2.ModelInput(name="x", optional=True)],
            model_transaction_policy=model_config_pb2.ModelTransactionPolicy(decoupled=True),
        ),
    )
    assert found.signature.inputs[0].optional
    assert found.signature.decoupled
    assert found.whose_batches is Batching.PASSTHROUGH


def test_what_the_queue_there_offers() -> None:
    """Delay, preferred sizes, priorities and timeouts are taken from the dynamic batcher."""
    queue = model_config_pb2.ModelQueuePolicy(default_timeout_microseconds=9, allow_timeout_override=True)
    dynamic = model_config_pb2.ModelDynamicBatching(
        preferred_batch_size=[8, 4],
        max_queue_delay_microseconds=500,
        priority_levels=3,
        default_queue_policy=queue,
    )
    found = facts(dynamic_batching=dynamic)
    assert (found.preferred_rows, found.delay_s, found.priorities, found.timeouts) == (
        (4, 8),
        0.0005,
        3,
        True,
    )
    assert found.whose_batches is Batching.AUTO


def test_instances_of_all_groups_count() -> None:
    """A group has its count on each GPU that it names."""
    group = model_config_pb2.ModelInstanceGroup
    assert facts(instance_group=[group(count=2), group(count=3, gpus=[0, 1])]).instances == 8
    assert facts().instances == 1


def test_models_that_only_triton_can_batch() -> None:
    """Sequences and ragged inputs are passed through."""
    sequences = facts(batching=False, sequence_batching=model_config_pb2.ModelSequenceBatching())
    ragged = facts(input=[model_config_pb2.ModelInput(name="x", allow_ragged_batch=True)])
    assert sequences.sequences
    assert {sequences.whose_batches, ragged.whose_batches} == {Batching.PASSTHROUGH}


@pytest.mark.parametrize(
    ("shapes", "fields", "words"),
    [
        ((("x", "FP8", [-1, 2]),), {}, "datatype 'FP8'"),
        ((("x", "FP32", [2]),), {}, "without the batch axis"),
        (PLAIN, {"input": [model_config_pb2.ModelInput(name="x", is_shape_tensor=True)]}, "shape tensor"),
    ],
)
def test_what_cannot_be_served_says_so(shapes: Any, fields: Any, words: str) -> None:
    """A load fails with the tensor's name and why."""
    with pytest.raises(ModelLoadError, match=words):
        read_facts(metadata(*shapes), config(**fields))


def test_batches_stay_within_max_batch_size() -> None:
    """Sizes that the model does not take there are not formed here."""
    options = BatchingOptions(max_batch_rows=64, allowed_rows=(2, 8, 16), max_delay_s=0.01)
    found = batching_of(options, facts(batching=False), Batching.AUTO)
    assert (found.max_batch_rows, found.allowed_rows, found.max_delay_s) == (8, (2, 8), 0.01)
    with pytest.raises(ModelLoadError, match="allowed_rows"):
        batching_of(BatchingOptions(allowed_rows=(16,)), facts(batching=False), Batching.AUTO)


def test_preferred_sizes_are_taken_over_unless_the_options_have_some() -> None:
    """What the operator says here counts."""
    dynamic = model_config_pb2.ModelDynamicBatching(preferred_batch_size=[4, 16])
    there = facts(dynamic_batching=dynamic)
    assert batching_of(BatchingOptions(), there, Batching.GATEWAY).preferred_rows == (4,)
    assert batching_of(BatchingOptions(preferred_rows=(2,)), there, Batching.GATEWAY).preferred_rows == (2,)


@pytest.mark.parametrize(("declared", "found"), [(None, ("*",)), ((), ()), (("p",), ("p",))])
def test_parameters_matter_unless_the_options_say_which(
    declared: tuple[str, ...] | None, found: tuple[str, ...]
) -> None:
    """A model on Triton may read any."""
    options = BatchingOptions(group_parameters=declared)
    assert batching_of(options, facts(), Batching.GATEWAY).group_parameters == found


@pytest.mark.parametrize(("delay_us", "wanted", "delay_s"), [
    (500, Batching.GATEWAY, 0.0),
    (500, Batching.AUTO, 0.0),
    (0, Batching.AUTO, 0.0),
    (0, Batching.GATEWAY, 0.01),
])  # fmt: skip
def test_never_two_delays(delay_us: int, wanted: Batching, delay_s: float) -> None:
    """Requests wait for company here or there."""
    there = facts(
        dynamic_batching=model_config_pb2.ModelDynamicBatching(max_queue_delay_microseconds=delay_us)
    )
    assert batching_of(BatchingOptions(max_delay_s=0.01), there, wanted).max_delay_s == delay_s


def test_passed_through_means_no_batches_and_no_delay_here() -> None:
    """Whether it is wished or the only way."""
    options = BatchingOptions(max_delay_s=0.01, preferred_rows=(4,), allowed_rows=(4,))
    sequences = facts(batching=False, sequence_batching=model_config_pb2.ModelSequenceBatching())
    for found in (
        batching_of(options, facts(), Batching.PASSTHROUGH),
        batching_of(options, sequences, Batching.GATEWAY),
    ):
        assert (found.enabled, found.max_delay_s, found.preferred_rows, found.allowed_rows) == (
            False,
            0.0,
            (),
            (),
        )


def test_differences_name_the_tensor() -> None:
    """Two endpoints with other models under one version are told apart."""
    one = facts().signature
    other = read_facts(metadata(("x", "FP32", [-1, 3]), PLAIN[1]), config()).signature
    assert differences(one, one) == ""
    assert differences(one, other) == "input 'x': FP32 [-1, 2] and FP32 [-1, 3]"
    named = read_facts(metadata(("x2", "FP32", [-1, 2]), PLAIN[1]), config()).signature
    assert differences(one, named) == "inputs ['x'] and ['x2']"
