"""Metadata, configuration, statistics and index: protobuf and JSON of the same facts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from gateway._proto import model_config_pb2 as config_pb
from gateway.core.options import BatchingOptions, ModelSpec, VersionPolicy
from gateway.core.statistics import (
    BatchSizeStatistics,
    DurationCount,
    ResponseStatistics,
    VersionStatistics,
)
from gateway.core.types import (
    CPU,
    Datatype,
    Device,
    ModelSignature,
    TensorSpec,
    VersionId,
    VersionState,
    VersionStatus,
)
from gateway.protocol.metadata import metadata_json, metadata_message
from gateway.protocol.model_config import config_json, config_message
from gateway.protocol.repository_index import index_json, index_message
from gateway.protocol.statistics import statistics_json, statistics_message
from tests.protocol.served import SIGNATURE, Served


def test_metadata_is_the_signature() -> None:
    """Clients read names, datatypes and shapes with the batch axis; JSON says the same."""
    message = service_pb2.ModelMetadataResponse.FromString(
        metadata_message(Served(), [1, 3]).SerializeToString()
    )
    assert [(i.name, i.datatype, list(i.shape)) for i in message.inputs] == [
        ("x", "FP32", [-1, 3]),
        ("words", "BYTES", [-1, -1]),
    ]
    assert metadata_json(Served(), [1, 3]) == {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "words", "datatype": "BYTES", "shape": [-1, -1]},
        ],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "best", "datatype": "INT64", "shape": [-1]},
        ],
    }


def counters() -> VersionStatistics:
    run = BatchSizeStatistics(DurationCount(1, 2), DurationCount(1, 5_000_000_000), DurationCount(1, 4))
    return VersionStatistics(
        last_inference_ms=1_700_000_000_000,
        inference_count=9,
        execution_count=2,
        success=DurationCount(3, 70),
        fail=DurationCount(1, 5),
        queue=DurationCount(3, 6),
        compute_input=DurationCount(3, 7),
        compute_infer=DurationCount(3, 8),
        compute_output=DurationCount(3, 9),
        batch_sizes={8: run, 1: BatchSizeStatistics()},
    )


def test_statistics_in_json_are_numbers_and_complete() -> None:
    """Every field that perf_analyzer reads is there as a JSON integer."""
    (stats,) = json.loads(json.dumps(statistics_json([Served(statistics=counters())])))["model_stats"]
    assert {
        k: stats[k] for k in ("name", "version", "last_inference", "inference_count", "execution_count")
    } == {
        "name": "m",
        "version": "3",
        "last_inference": 1_700_000_000_000,
        "inference_count": 9,
        "execution_count": 2,
    }
    assert stats["inference_stats"] == {
        "success": {"count": 3, "ns": 70},
        "fail": {"count": 1, "ns": 5},
        "queue": {"count": 3, "ns": 6},
        "compute_input": {"count": 3, "ns": 7},
        "compute_infer": {"count": 3, "ns": 8},
        "compute_output": {"count": 3, "ns": 9},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert [b["batch_size"] for b in stats["batch_stats"]] == [1, 8]
    assert stats["batch_stats"][1]["compute_infer"] == {"count": 1, "ns": 5_000_000_000}


def test_untouched_statistics_have_every_duration() -> None:
    """A version that has not run yet reports zeros, not holes."""
    (stats,) = statistics_json([Served()])["model_stats"]
    assert len(stats["inference_stats"]) == 8
    assert all(d == {"count": 0, "ns": 0} for d in stats["inference_stats"].values())


def test_statistics_on_grpc_are_what_tritonclient_reads() -> None:
    """The message of tritonclient reads the same counters, version by version."""
    data = statistics_message([Served(statistics=counters()), Served()]).SerializeToString()
    first, second = service_pb2.ModelStatisticsResponse.FromString(data).model_stats
    assert first.inference_stats.success.ns == 70
    assert first.batch_stats[1].compute_infer.ns == 5_000_000_000
    assert second.inference_stats.HasField("cache_miss")


def test_memory_is_told_by_device() -> None:
    """Each device has its kind in Triton's words, its ordinal and the bytes held, on both transports."""
    served = Served(memory=((CPU, 10), (Device("cuda", 1), 20)))
    told = [{"type": "CPU", "id": 0, "byte_size": 10}, {"type": "GPU", "id": 1, "byte_size": 20}]
    assert statistics_json([served])["model_stats"][0]["memory_usage"] == told
    message = service_pb2.ModelStatisticsResponse.FromString(statistics_message([served]).SerializeToString())
    assert [(m.type, m.id, m.byte_size) for m in message.model_stats[0].memory_usage] == [
        ("CPU", 0, 10),
        ("GPU", 1, 20),
    ]


def test_responses_are_told_by_their_place() -> None:
    """The counters of each place in a stream are there under its number, zero or not."""
    times = ResponseStatistics(success=DurationCount(2, 30), cancel=DurationCount(1, 4))
    served = Served(statistics=VersionStatistics(responses={0: ResponseStatistics(), 1: times}))
    told = statistics_json([served])["model_stats"][0]["response_stats"]
    zero = {"count": 0, "ns": 0}
    names = ("compute_infer", "compute_output", "success", "fail", "empty_response", "cancel")
    assert told["0"] == dict.fromkeys(names, zero)
    assert told["1"] == told["0"] | {"success": {"count": 2, "ns": 30}, "cancel": {"count": 1, "ns": 4}}
    message = service_pb2.ModelStatisticsResponse.FromString(statistics_message([served]).SerializeToString())
    assert message.model_stats[0].response_stats["1"].success.ns == 30


STATES = {
    VersionState.NEW: "LOADING",
    VersionState.FETCHING: "LOADING",
    VersionState.VERIFYING: "LOADING",
    VersionState.LOADING: "LOADING",
    VersionState.CHECKING: "LOADING",
    VersionState.WARMING: "LOADING",
    VersionState.TESTING: "LOADING",
    VersionState.READY: "READY",
    VersionState.DRAINING: "UNLOADING",
    VersionState.UNLOADED: "UNAVAILABLE",
    VersionState.FAILED: "UNAVAILABLE",
}


@pytest.mark.parametrize("state", list(VersionState))
def test_every_state_has_its_name_in_the_index(state: VersionState) -> None:
    """Each state of a version is one of the protocol's four."""
    (entry,) = index_message([VersionStatus(id=VersionId("m", 2, ""), state=state)]).models
    assert (entry.name, entry.version, entry.state) == ("m", "2", STATES[state])


def test_the_index_in_json_leaves_out_what_is_not_there() -> None:
    """A model without versions has none, a ready one no reason, and ready_only keeps what can serve."""
    statuses = [
        VersionStatus(id=VersionId("a", 1, ""), state=VersionState.READY),
        VersionStatus(id=VersionId("b", 2, ""), state=VersionState.FAILED, reason="bad file"),
        VersionStatus(id=VersionId("c", 0, ""), state=VersionState.UNLOADED),
    ]
    assert index_json(statuses) == [
        {"name": "a", "version": "1", "state": "READY"},
        {"name": "b", "version": "2", "state": "UNAVAILABLE", "reason": "bad file"},
        {"name": "c", "state": "UNAVAILABLE", "reason": "unloaded"},
    ]
    assert index_json(statuses, ready_only=True) == [{"name": "a", "version": "1", "state": "READY"}]


def read_by_tritonclient(served: Served) -> Any:
    return model_config_pb2.ModelConfig.FromString(config_message(served).SerializeToString())


def test_config_of_a_batched_model() -> None:
    """Dims leave out the batch axis, inputs match the metadata, and batching is announced."""
    config = read_by_tritonclient(Served())
    assert (config.name, config.backend, config.platform) == ("m", "onnxruntime", "onnxruntime_onnx")
    assert (config.max_batch_size, config.default_model_filename) == (64, "model.onnx")
    assert [(i.name, i.data_type, list(i.dims), i.optional) for i in config.input] == [
        ("x", model_config_pb2.TYPE_FP32, [3], False),
        ("words", model_config_pb2.TYPE_STRING, [-1], True),
    ]
    scores, best = config.output
    assert (list(scores.dims), scores.HasField("reshape")) == ([4], False)
    assert (list(best.dims), list(best.reshape.shape), best.HasField("reshape")) == ([1], [], True)
    assert config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
    (group,) = config.instance_group
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_CPU, 2)


def test_config_tells_the_registrys_label() -> None:
    """The registry's own version id is beside the number, in JSON too; a local version has none."""
    assert "registry_version" not in read_by_tritonclient(Served()).parameters
    assert config_json(Served())["parameters"] == {}
    served = Served(label="1.4.2")
    assert read_by_tritonclient(served).parameters["registry_version"].string_value == "1.4.2"
    assert config_json(served)["parameters"] == {"registry_version": {"string_value": "1.4.2"}}


def test_config_in_json_has_names_and_numbers() -> None:
    """Enums are names and 64-bit integers numbers; objects appear only when they are set."""
    spec = ModelSpec(name="m", batching=BatchingOptions(max_delay_s=0.002, preferred_rows=(4, 8)))
    config = config_json(Served(spec=spec))
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [3]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 2000
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config["dynamic_batching"]["priority_queue_policy"] == {}
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert "response_cache" not in config
    assert "sequence_batching" not in config
    json.dumps(config)


@pytest.mark.parametrize(
    ("signature", "batching", "expected"),
    [
        (SIGNATURE, BatchingOptions(max_batch_rows=16), 16),
        (SIGNATURE, BatchingOptions(max_batch_rows=16, allowed_rows=(2, 8)), 8),
        (
            ModelSignature(
                (*SIGNATURE.inputs, TensorSpec("sr", Datatype.INT64, (), batch_axis=None)), SIGNATURE.outputs
            ),
            BatchingOptions(),
            0,
        ),
        (
            ModelSignature(SIGNATURE.inputs, (TensorSpec("h", Datatype.FP32, (2, -1, 64), batch_axis=1),)),
            BatchingOptions(),
            0,
        ),
    ],
)
def test_the_batch_axis_is_implicit_only_if_every_tensor_has_it_first(
    signature: ModelSignature, batching: BatchingOptions, expected: int
) -> None:
    """max_batch_size is 0, and dims are whole shapes, unless all tensors have the batch axis first."""
    config = config_message(Served(signature=signature, spec=ModelSpec(name="m", batching=batching)))
    assert config.max_batch_size == expected
    assert list(config.input[0].dims) == ([3] if expected else [-1, 3])
    assert config.HasField("dynamic_batching") == (expected > 0)


def test_the_declared_config_comes_first_and_is_completed() -> None:
    """What the author declared stays; missing tensors, types and settings come from the version."""
    declared = config_pb.ModelConfig(name="other", backend="onnxruntime", max_batch_size=4)
    declared.input.add(name="x", dims=[3], format=config_pb.ModelInput.FORMAT_NCHW)
    declared.parameters["k"].string_value = "v"
    declared.instance_group.add(count=7)
    declared.version_policy.all.SetInParent()
    declared.dynamic_batching.max_queue_delay_microseconds = 5
    spec = ModelSpec(name="m", max_batch_size=4, declared_config=declared.SerializeToString())
    config = config_message(Served(spec=spec))
    assert config.name == "m"
    assert config.max_batch_size == 4
    assert config.input[0].format == config_pb.ModelInput.FORMAT_NCHW
    assert config.input[0].data_type == config_pb.TYPE_FP32
    assert [i.name for i in config.input] == ["x", "words"]
    assert config.parameters["k"].string_value == "v"
    assert [g.count for g in config.instance_group] == [7]
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert config.dynamic_batching.max_queue_delay_microseconds == 5
    assert config_json(Served(spec=spec))["parameters"] == {"k": {"string_value": "v"}}


def test_accelerators_policies_and_decoupling_are_reported() -> None:
    """Device ordinals, the version policy, disabled batching and decoupled answers are told."""
    spec = ModelSpec(
        name="m", versions=VersionPolicy(specific=(1, 3)), batching=BatchingOptions(enabled=False)
    )
    served = Served(
        spec=spec, devices=((Device("cuda", 1), 1), (CPU, 1)), signature=replace(SIGNATURE, decoupled=True)
    )
    config = config_message(served)
    assert [(g.kind, list(g.gpus)) for g in config.instance_group] == [
        (config_pb.ModelInstanceGroup.KIND_GPU, [1]),
        (config_pb.ModelInstanceGroup.KIND_CPU, []),
    ]
    assert list(config.version_policy.specific.versions) == [1, 3]
    assert config.WhichOneof("scheduling_choice") is None
    assert config_json(served)["model_transaction_policy"] == {"decoupled": True}
