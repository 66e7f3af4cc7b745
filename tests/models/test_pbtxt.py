"""config.pbtxt: what is read, what refuses, what only warns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway._proto import model_config_pb2 as pb
from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, InstanceGroup, ModelSpec, VersionPolicy
from gateway.core.types import CPU, Datatype, Device, ModelSignature, TensorSpec
from gateway.models.conform import completed, conformed, declared_signature
from gateway.models.pbtxt import DeclaredModel, declare, parse_json, parse_text
from gateway.models.pbtxt_fields import FIELDS, Treatment
from gateway.testing import FakeLoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

TENSORS = """
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
"""
SIGNATURE = ModelSignature(
    (TensorSpec("x", Datatype.FP32, (-1, 4)), TensorSpec("o", Datatype.FP32, (-1, 1), optional=True)),
    (TensorSpec("y", Datatype.FP32, (-1, -1)), TensorSpec("z", Datatype.FP32, (-1, 9))),
)


def read(text: str) -> DeclaredModel:
    return declare(parse_text(text), ModelSpec(name="m"), name="m")


def test_whole_file_is_read() -> None:
    """Every supported field lands in its place of the spec."""
    declared = read(
        """
        name: "m" platform: "onnxruntime_onnx" max_batch_size: 8 default_model_filename: "net.onnx"
        version_policy { specific { versions: [ 3, 1 ] } }
        instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_GPU gpus: [ 0, 1 ] }, { } ]
        dynamic_batching {
          preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 500
          priority_levels: 3 default_priority_level: 2
          default_queue_policy {
            default_timeout_microseconds: 2000000 allow_timeout_override: true max_queue_size: 100
          }
        }
        parameters { key: "intra_op_thread_count" value: { string_value: "3" } }
        parameters { key: "execution_mode" value: { string_value: "1" } }
        parameters { key: "enable_mem_arena" value: { string_value: "0" } }
        parameters { key: "memory.enable_memory_arena_shrinkage" value: { string_value: "cpu:0" } }
        parameters { key: "session.use_device_allocator_for_initializers" value: { string_value: "1" } }
        optimization { graph { level: 1 } execution_accelerators {
          gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }
        } }
        model_warmup [
          { name: "a" batch_size: 4 count: 2 inputs { key: "x" value: { dims: [ 4 ] random_data: true } } },
          { name: "b" batch_size: 8 inputs { key: "x" value: { dims: [ 4 ] random_data: true } } }
        ]
        """
        + TENSORS
    )
    spec = declared.spec
    assert declared.model_filename == "net.onnx"
    assert declared.label_files == {"y": "labels.txt"}
    assert spec.backend == "onnxruntime"
    assert spec.versions == VersionPolicy(specific=(1, 3))
    assert spec.max_batch_size == 8
    assert spec.batching == BatchingOptions(
        max_batch_rows=8,
        preferred_rows=(4, 8),
        max_delay_s=500 * 1e-6,
        priority_levels=3,
        default_priority=2,
        default_timeout_s=2.0,
        max_queue_rows=100,
    )
    assert spec.instances == (
        InstanceGroup(device=CPU, count=2),
        InstanceGroup(device=Device("cuda", 0), count=1),
        InstanceGroup(device=Device("cuda", 1), count=1),
        InstanceGroup(device=None, count=1),
    )
    assert spec.backend_options == {
        "intra_op_threads": 3,
        "execution_mode": "parallel",
        "enable_mem_arena": False,
        "arena_shrinkage": True,
        "session_options": {"session.use_device_allocator_for_initializers": "1"},
        "graph_optimization_level": "extended",
        "providers": [
            {"name": "TensorrtExecutionProvider", "options": {"trt_fp16_enable": "1"}},
            {"name": "CUDAExecutionProvider", "options": {}},
            {"name": "CPUExecutionProvider", "options": {}},
        ],
    }
    assert (spec.warm_up.rows, spec.warm_up.repeat, spec.warm_up.required) == ((4, 8), 2, True)
    assert (spec.warm_up.data, spec.warm_up.shapes) == ({"x": "random"}, {"x": (1, 4)})
    assert pb.ModelConfig.FromString(spec.declared_config).name == "m"


def test_file_that_declares_nothing_completes_itself() -> None:
    """Without batch size and tensors the defaults of a bare model file hold."""
    spec = read("").spec
    assert spec.batching == BatchingOptions()
    assert spec.max_batch_size is None


def test_batch_size_without_dynamic_batching_runs_requests_alone() -> None:
    """A declared batch size alone allows rows within a request and merges none."""
    batching = read("max_batch_size: 4" + TENSORS).spec.batching
    assert (batching.enabled, batching.max_batch_rows) == (False, 4)


def test_whole_shapes_disable_batching() -> None:
    """Declared tensors without max_batch_size have whole shapes and are never merged."""
    spec = read(
        TENSORS.replace("dims: [ 4 ]", "dims: [ -1, 4 ]").replace("dims: [ 2 ]", "dims: [ -1, 2 ]")
    ).spec
    assert (spec.batching.enabled, spec.max_batch_size) == (False, 0)
    signature = declared_signature(SIGNATURE, spec)
    assert {t.batch_axis for t in (*signature.inputs, *signature.outputs)} == {None}
    assert completed(spec, signature).max_batch_size == 0


REFUSED = [
    ('input { name: "x" reshape { shape: [ 1 ] } }', "input.reshape"),
    ('input { name: "x" allow_ragged_batch: true }', "input.allow_ragged_batch"),
    ('input { name: "x" is_shape_tensor: true }', "input.is_shape_tensor"),
    ('output { name: "y" reshape { } }', "output.reshape"),
    ("batch_input { }", "batch_input"),
    ("batch_output { }", "batch_output"),
    ("sequence_batching { }", "sequence_batching"),
    ("ensemble_scheduling { }", "ensemble_scheduling"),
    ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled"),
    ("model_repository_agents { }", "model_repository_agents"),
    ('cc_model_filenames { key: "7.5" value: "x" }', "cc_model_filenames"),
    ("instance_group { passive: true }", "instance_group.passive"),
    ('instance_group { profile: "1" }', "instance_group.profile"),
    (
        "dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
        "dynamic_batching.default_queue_policy.timeout_action",
    ),
    (
        "dynamic_batching { priority_queue_policy { key: 1 value { max_queue_size: 3 } } }",
        "dynamic_batching.priority_queue_policy",
    ),
    ('platform: "tensorrt_plan"', "platform"),
    ("max_batch_size: -1", "max_batch_size"),
    ("version_policy { specific { } }", "version_policy.specific.versions"),
    ("version_policy { specific { versions: 0 } }", "version_policy.specific.versions"),
    (
        "max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }",
        "dynamic_batching.preferred_batch_size",
    ),
    ("dynamic_batching { default_priority_level: 1 }", "dynamic_batching.default_priority_level"),
    ("dynamic_batching { }" + TENSORS, "dynamic_batching"),
    ('default_model_filename: "../secret.onnx"', "default_model_filename"),
    ('default_model_filename: "/etc/passwd"', "default_model_filename"),
    ('output { name: "y" label_filename: "../labels" }', "output.label_filename"),
    ("optimization { graph { level: 7 } }", "optimization.graph.level"),
    (
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "auto_io" } } }',
        "optimization.execution_accelerators",
    ),
    ('parameters { key: "intra_op_thread_count" value { string_value: "many" } }', "intra_op_thread_count"),
    ('parameters { key: "execution_mode" value { string_value: "2" } }', "execution_mode"),
    ('name: "other"', "directory name must equal model name"),
]


@pytest.mark.parametrize(("text", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_unsupported_field_refuses_by_name(text: str, field: str) -> None:
    """A field that would change results or behaviour refuses to load and is named."""
    with pytest.raises(ModelLoadError) as refusal:
        read(text)
    assert field in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("optimization { eager_batching: true }", "optimization.eager_batching"),
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        ("response_cache { enable: true }", "response_cache.enable"),
        ('metric_tags { key: "a" value: "b" }', "metric_tags"),
        ("instance_group { rate_limiter { priority: 1 } }", "instance_group.rate_limiter"),
        ("max_batch_size: 2 dynamic_batching { preserve_ordering: true }", "preserve_ordering"),
        ('parameters { key: "author" value { string_value: "me" } }', "author"),
        ("instance_group { kind: KIND_GPU }", "GPU 0"),
        ('model_warmup { name: "a" } model_warmup { name: "b" inputs { key: "x" value { } } }', "'b'"),
    ],
)
def test_tuning_field_warns_once(text: str, field: str) -> None:
    """A field that only tunes is ignored with one warning that names it."""
    assert len([w for w in read(text).warnings if field in w]) == 1


def test_field_that_says_the_default_does_not_count() -> None:
    """An explicit default, as generated files have, neither refuses nor warns."""
    assert (
        read("model_transaction_policy { decoupled: false } response_cache { enable: false }").warnings == ()
    )


def test_every_field_of_the_format_has_a_treatment() -> None:
    """No field of ModelConfig is outside the table, and the table names no field that does not exist."""

    def paths(message: Any, prefix: str = "") -> Iterator[str]:
        for field in message.fields:
            path = prefix + field.name
            yield path
            inner = FIELDS[path][0] is Treatment.READ and any(k.startswith(path + ".") for k in FIELDS)
            if inner and field.message_type is not None:
                yield from paths(field.message_type, path + ".")

    assert set(paths(pb.ModelConfig.DESCRIPTOR)) == set(FIELDS)


@pytest.mark.parametrize("text", ["max_batch_size: x", "no_such_field: 1", "input {", "\x00"])
def test_malformed_text_is_refused_with_its_place(text: str) -> None:
    """Text that does not parse names line and column."""
    with pytest.raises(ModelLoadError, match=r"config.pbtxt: \d+:\d+"):
        parse_text(text)


def test_json_form_is_the_same_config() -> None:
    """The JSON of a load request reads as the text form does, and its faults are refused."""
    assert parse_json('{"max_batch_size": 4}') == parse_text("max_batch_size: 4")
    assert parse_json('{"maxBatchSize": 4}') == parse_text("max_batch_size: 4")
    for text in ("{", '{"no_such": 1}', "[]", "[1]", "null", '""', "[" * 100_000):
        with pytest.raises(ModelLoadError, match=r"^config: "):
            parse_json(text)


def batched(tensors: str) -> ModelSpec:
    return read("max_batch_size: 4\n" + tensors).spec


def test_declared_dims_narrow_the_signature() -> None:
    """A size declared where the model leaves it open holds; undeclared outputs and optional inputs go."""
    signature = declared_signature(SIGNATURE, batched(TENSORS))
    assert [t.shape for t in signature.inputs] == [(-1, 4)]
    assert [(t.name, t.shape) for t in signature.outputs] == [("y", (-1, 2))]
    assert completed(batched(TENSORS), signature).max_batch_size == 4


def test_conforming_model_is_wrapped_only_when_it_differs() -> None:
    """A model is passed on as it is when the declaration adds nothing."""
    model = FakeLoadedModel(SIGNATURE)
    assert conformed(model, ModelSpec(name="m")) is model
    assert conformed(model, batched(TENSORS)).signature != SIGNATURE


def test_a_wrapped_model_lets_the_models_runs_run() -> None:
    """What a wrapper narrows is the signature alone."""
    model = FakeLoadedModel(SIGNATURE)
    conformed(model, batched(TENSORS)).let_run(0.25)
    assert model.let_run_s == [0.25]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ('input { name: "q" }', "unexpected inference input 'q'"),
        ('output { name: "q" }', "unexpected inference output 'q'"),
        ('input { name: "o" dims: 1 }', "lacks the model's inputs ['x']"),
        ('input { name: "x" data_type: TYPE_INT8 dims: 4 }', "data type TYPE_INT8"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 5 }', "dims [5] do not match the model's [4]"),
        ('input { name: "x" data_type: TYPE_FP32 dims: -1 }', "dims [-1] do not match the model's [4]"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [ 4, 1 ] }', "dims [4, 1] do not match"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 4 optional: true }', "declared optional"),
    ],
)
def test_contradiction_of_the_model_is_refused(tensors: str, message: str) -> None:
    """A declaration that contradicts the model file refuses to load and says where."""
    with pytest.raises(ModelLoadError) as refusal:
        declared_signature(SIGNATURE, batched(tensors))
    assert message in str(refusal.value)


def test_batch_size_of_a_model_without_batch_axis_is_refused() -> None:
    """max_batch_size on a model that cannot be batched is refused in Triton's words."""
    fixed = ModelSignature(
        (TensorSpec("x", Datatype.FP32, (1, 4), batch_axis=None),),
        (TensorSpec("y", Datatype.FP32, (1, 2), batch_axis=None),),
    )
    with pytest.raises(ModelLoadError, match="does not support batching while non-zero max_batch_size"):
        declared_signature(fixed, batched(TENSORS))
