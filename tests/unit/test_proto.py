"""The generated protobuf modules: wire compatible with the clients', and able to live beside them."""

import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as reference_health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as reference_reflection_pb2
from tritonclient.grpc import model_config_pb2 as triton_model_config_pb2
from tritonclient.grpc import service_pb2 as triton_service_pb2

from gateway._proto import health_pb2, model_config_pb2, open_inference_pb2, reflection_pb2, reflection_v1_pb2
from gateway._proto.pool import POOL

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "src/gateway/_proto"

# What our files say beyond the reference's, in the words of `facts`: Triton leaves these properties out.
METADATA = "inference.ModelMetadataResponse"
OURS_ALONE = {
    f"field {METADATA}.properties = 6: repeated message .{METADATA}.PropertiesEntry",
    f"message {METADATA}.PropertiesEntry map_entry: true",
    f"field {METADATA}.PropertiesEntry.key = 1: optional string",
    f"field {METADATA}.PropertiesEntry.value = 2: optional string",
}


def as_proto(file: FileDescriptor) -> FileDescriptorProto:
    return FileDescriptorProto.FromString(file.serialized_pb)


def facts(file: FileDescriptorProto) -> set[str]:
    """Return what reaches the wire, the text format or reflection, a line each."""
    found = {f"syntax {file.syntax}", f"package {file.package}"}
    for enum in file.enum_type:
        found |= set(enum_facts(enum, file.package))
    for message in file.message_type:
        found |= set(message_facts(message, file.package))
    for service in file.service:
        for method in service.method:
            streams = f"{method.client_streaming} {method.server_streaming}"
            types = f"{method.input_type} {method.output_type}"
            found.add(f"rpc {file.package}.{service.name}.{method.name}: {types} {streams}")
    return found


def message_facts(message: DescriptorProto, scope: str) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield f"message {name} {one_line(message.options)}".rstrip()
    for field in message.field:
        yield field_fact(field, name, [oneof.name for oneof in message.oneof_decl])
    for nested in message.nested_type:
        yield from message_facts(nested, name)
    for enum in message.enum_type:
        yield from enum_facts(enum, name)


def field_fact(field: FieldDescriptorProto, scope: str, oneofs: list[str]) -> str:
    label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    oneof = f"oneof {oneofs[field.oneof_index]}" if field.HasField("oneof_index") else ""
    rest = [field.type_name, oneof, "presence" if field.proto3_optional else "", one_line(field.options)]
    return " ".join([f"field {scope}.{field.name} = {field.number}: {label} {kind}", *filter(None, rest)])


def enum_facts(enum: EnumDescriptorProto, scope: str) -> Iterator[str]:
    yield f"enum {scope}.{enum.name} {one_line(enum.options)}".rstrip()
    for value in enum.value:
        yield f"value {scope}.{enum.name}.{value.name} = {value.number}"


def one_line(options: Message) -> str:
    return text_format.MessageToString(options, as_one_line=True)


def filled(message: Message, depth: int = 3) -> Message:
    """Set every field, of each oneof the last, of messages down to a depth."""
    for number, field in enumerate(message.DESCRIPTOR.fields, start=1):
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fill_map(message, field, depth)
        elif field.message_type is not None and depth:
            child = getattr(message, field.name)
            filled(child.add() if field.is_repeated else child, depth - 1)
            if not field.is_repeated:
                child.SetInParent()
        elif field.message_type is None:
            value = sample(field, number)
            if field.is_repeated:
                getattr(message, field.name).extend([value, value])
            else:
                setattr(message, field.name, value)
    return message


def fill_map(message: Message, field: FieldDescriptor, depth: int) -> None:
    assert field.message_type is not None
    key = sample(field.message_type.fields_by_name["key"], 7)
    value = field.message_type.fields_by_name["value"]
    if value.message_type is None:
        getattr(message, field.name)[key] = sample(value, 8)
    else:
        filled(getattr(message, field.name)[key], depth - 1)


def sample(field: FieldDescriptor, number: int) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    samples: dict[int, object] = {
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_STRING: b"\xffb"
        if field.type == FieldDescriptor.TYPE_BYTES
        else f"text {number}",
        FieldDescriptor.CPPTYPE_FLOAT: 0.5 + number,
        FieldDescriptor.CPPTYPE_DOUBLE: 0.1 + number,
        FieldDescriptor.CPPTYPE_INT32: -number,
        FieldDescriptor.CPPTYPE_INT64: -number - 2**40,
        FieldDescriptor.CPPTYPE_UINT32: number + 2**31,
        FieldDescriptor.CPPTYPE_UINT64: number + 2**63,
    }
    return samples[field.cpp_type]


@pytest.mark.parametrize(
    ("ours", "reference", "ours_alone"),
    [
        pytest.param(open_inference_pb2, triton_service_pb2, OURS_ALONE, id="open_inference"),
        pytest.param(model_config_pb2, triton_model_config_pb2, set(), id="model_config"),
        pytest.param(health_pb2, reference_health_pb2, set(), id="health"),
        pytest.param(reflection_pb2, reference_reflection_pb2, set(), id="reflection"),
    ],
)
def test_descriptors_match_reference(ours: ModuleType, reference: ModuleType, ours_alone: set[str]) -> None:
    """Names, numbers, types, labels, oneofs, enums and RPCs are the reference's, but for a stated few."""
    mine, theirs = (facts(as_proto(module.DESCRIPTOR)) for module in (ours, reference))

    assert mine - theirs == ours_alone
    assert theirs - mine == set()


def test_reflection_v1_is_v1alpha_renamed() -> None:
    """The final reflection service differs from the alpha one in its package's name alone."""
    alpha, final = (facts(as_proto(module.DESCRIPTOR)) for module in (reflection_pb2, reflection_v1_pb2))

    assert {fact.replace("grpc.reflection.v1alpha", "grpc.reflection.v1") for fact in alpha} == final


def move_field(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].number += 1


def rename_field(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].name += "_"


def retype_field(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].type = FieldDescriptorProto.TYPE_BYTES


def repeat_field(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].label = FieldDescriptorProto.LABEL_REPEATED


def leave_oneof(file: FileDescriptorProto) -> None:
    file.message_type[0].field[1].ClearField("oneof_index")


def drop_nested_field(file: FileDescriptorProto) -> None:
    del file.message_type[0].nested_type[0].field[0]


def move_enum_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value[0].number += 1


def stop_streaming(file: FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = False


def unpack_field(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].options.packed = False


@pytest.mark.parametrize(
    "change",
    [
        move_field,
        rename_field,
        retype_field,
        repeat_field,
        leave_oneof,
        drop_nested_field,
        move_enum_value,
        stop_streaming,
        unpack_field,
    ],
)
def test_descriptor_walk_sees_every_kind_of_change(change: Callable[[FileDescriptorProto], None]) -> None:
    """The comparison with the reference would notice each way in which a file can drift."""
    file = text_format.Parse(
        """
        package: "p" syntax: "proto3"
        message_type {
          name: "M" oneof_decl { name: "choice" }
          field { name: "a" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
          field { name: "b" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
          nested_type { name: "N" field { name: "c" number: 1 type: TYPE_BOOL label: LABEL_OPTIONAL } }
        }
        enum_type { name: "E" value { name: "ZERO" number: 0 } }
        service {
          name: "S"
          method { name: "R" input_type: ".p.M" output_type: ".p.M" server_streaming: true }
        }
        """,
        FileDescriptorProto(),
    )
    before = facts(file)

    change(file)

    assert facts(file) != before


MESSAGES = [
    *(
        (triton_service_pb2, open_inference_pb2, name)
        for name in triton_service_pb2.DESCRIPTOR.message_types_by_name
    ),
    (triton_model_config_pb2, model_config_pb2, "ModelConfig"),
]


@pytest.mark.parametrize(
    ("reference", "ours", "name"), [pytest.param(*case, id=case[2]) for case in MESSAGES]
)
def test_bytes_pass_both_ways(reference: ModuleType, ours: ModuleType, name: str) -> None:
    """A message with every field set keeps its content from tritonclient's class to ours and back."""
    theirs: Message = filled(getattr(reference, name)())
    wire = theirs.SerializeToString(deterministic=True)

    mine: Message = getattr(ours, name).FromString(wire)

    assert json_format.MessageToDict(mine) == json_format.MessageToDict(theirs)
    assert mine.SerializeToString(deterministic=True) == wire
    assert getattr(reference, name).FromString(mine.SerializeToString()) == theirs


def test_config_pbtxt_parses() -> None:
    """A model repository's config.pbtxt reads into our ModelConfig as into tritonclient's."""
    text = """
        name: "classifier"
        backend: "onnxruntime"
        max_batch_size: 64
        input [ { name: "image" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, -1 ] },
                { name: "note" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [] } optional: true } ]
        output { name: "scores" data_type: TYPE_BF16 dims: 1000 label_filename: "labels.txt" }
        dynamic_batching {
          preferred_batch_size: [ 8, 32 ]
          max_queue_delay_microseconds: 2000
          priority_levels: 2
          default_priority_level: 2
          priority_queue_policy { key: 1 value { timeout_action: DELAY allow_timeout_override: true } }
        }
        version_policy: { specific { versions: [ 1, 3 ] } }
        instance_group [
          { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] rate_limiter { resources { global: true } } }
        ]
        optimization {
          graph { level: -1 }
          execution_accelerators {
            gpu_execution_accelerator : [
              { name : "tensorrt" parameters { key: "precision_mode" value: "FP16" } }
            ]
          }
        }
        parameters { key: "intra_op_thread_count" value: { string_value: "4" } }
        model_warmup [
          {
            name: "zeros" batch_size: 8
            inputs { key: "image" value: { data_type: TYPE_FP32 dims: [ 3, 224, 224 ] zero_data: true } }
          }
        ]
    """

    config = text_format.Parse(text, model_config_pb2.ModelConfig())

    assert config.version_policy.WhichOneof("policy_choice") == "specific"
    assert list(config.input[0].dims) == [3, 224, -1]
    assert config.parameters["intra_op_thread_count"].string_value == "4"
    reference = text_format.Parse(text, triton_model_config_pb2.ModelConfig())
    assert config.SerializeToString(deterministic=True) == reference.SerializeToString(deterministic=True)


def test_messages_pickle() -> None:
    """A message reaches another process by pickle as the same class."""
    request = open_inference_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[b"\x00\xff"])

    copy = pickle.loads(pickle.dumps(request))

    assert type(copy) is open_inference_pb2.ModelInferRequest
    assert copy == request


OURS = "from gateway._proto import health_pb2, open_inference_pb2, reflection_pb2, reflection_v1_pb2"
THEIRS = """
import tritonclient.grpc
from grpc_health.v1 import health_pb2 as their_health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as their_reflection_pb2
"""
EXCHANGE = """
from tritonclient.grpc import service_pb2
ours = open_inference_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"xy"])
ours.parameters["priority"].uint64_param = 2
theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
assert theirs.parameters["priority"].uint64_param == 2
assert open_inference_pb2.ModelInferRequest.FromString(theirs.SerializeToString()) == ours
assert health_pb2.HealthCheckRequest is not their_health_pb2.HealthCheckRequest
assert reflection_pb2.ErrorResponse is not their_reflection_pb2.ErrorResponse
"""


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "imports", [pytest.param([THEIRS, OURS], id="after"), pytest.param([OURS, THEIRS], id="before")]
)
def test_lives_beside_the_clients(imports: list[str]) -> None:
    """Ours and the clients' modules load in one process in either order and read each other's bytes."""
    done = python("-c", "\n".join([*imports, EXCHANGE]))

    assert done.returncode == 0, done.stderr


def test_default_pool_stays_clean() -> None:
    """Importing ours puts no name into the pool that the clients' modules use."""
    code = """
from google.protobuf import descriptor_pool
from gateway._proto.pool import POOL
for name in ("inference.ModelInferRequest", "inference.ModelConfig", "grpc.health.v1.HealthCheckRequest"):
    POOL.FindMessageTypeByName(name)
    try:
        descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        continue
    raise SystemExit(f"{name} is in the default pool")
"""
    done = python("-c", f"{OURS}\n{code}")

    assert done.returncode == 0, done.stderr


def test_pool_answers_reflection() -> None:
    """The pool finds the file of each service that is served, as server reflection needs it."""
    services = {
        "inference.GRPCInferenceService": 20,
        "grpc.health.v1.Health": 2,
        "grpc.reflection.v1.ServerReflection": 1,
        "grpc.reflection.v1alpha.ServerReflection": 1,
    }

    # types-protobuf leaves this method without types.
    files = {name: POOL.FindFileContainingSymbol(name) for name in services}  # type: ignore[no-untyped-call]
    found = {name: len(files[name].services_by_name[name.rpartition(".")[2]].methods) for name in services}

    assert found == services


def test_oldest_protobuf_allowed_runs_the_generated_code() -> None:
    """The oldest protobuf that pyproject.toml admits is the one the code was generated for, or newer."""
    header = re.compile(r"^# Protobuf Python Version: (.+)$", re.MULTILINE)
    generated = {
        found[1] for path in GENERATED.glob("*_pb2.py") if (found := header.search(path.read_text()))
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [
        found[1] for line in project["dependencies"] if (found := re.match(r"protobuf>=([\d.]+)", line))
    ]

    (needed,), (admitted,) = (
        [tuple(map(int, text.split("."))) for text in found] for found in (generated, bounds)
    )
    assert admitted >= needed
