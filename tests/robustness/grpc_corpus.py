"""Bad gRPC messages, each with the code and the words that its answer must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc

from gateway._proto import open_inference_pb2 as pb
from loadtests.soak_models import NUMBERS, OFFSET, TEXT
from tests.robustness.http_corpus import LIMIT_BYTES, element

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
MISSING: Final = grpc.StatusCode.NOT_FOUND
ROW: Final = bytes(16)


@dataclass(frozen=True)
class BadRpc:
    """`message` is sent to `method` of the inference service."""

    name: str
    message: bytes
    code: grpc.StatusCode
    words: tuple[str, ...]
    method: str = "ModelInfer"


def tensor(**changes: Any) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(
        **{"name": "x", "datatype": "FP32", "shape": [1, 4], **changes}
    )


def message(*inputs: pb.ModelInferRequest.InferInputTensor, **changes: Any) -> bytes:
    whole = {"model_name": OFFSET, "inputs": inputs, "raw_input_contents": [ROW] * len(inputs), **changes}
    return pb.ModelInferRequest(**whole).SerializeToString()


def bad(
    name: str, words: tuple[str, ...], *inputs: Any, code: grpc.StatusCode = INVALID, **changes: Any
) -> BadRpc:
    return BadRpc(name, message(*(inputs or [tensor()]), **changes), code, words)


def typed(**contents: Any) -> pb.InferTensorContents:
    return pb.InferTensorContents(**contents)


GOOD: Final = message(tensor())
_PARAMETER: Final = pb.InferParameter
_TRUNCATED: Final = [
    BadRpc(f"truncated at {size} of {len(GOOD)}", GOOD[:size], INVALID, ("ModelInferRequest",))
    for size in (1, 5, 12, len(GOOD) - 20, len(GOOD) - 1)
]

INFER: Final = [
    *_TRUNCATED,
    BadRpc("another message", b"\xff" * 64, INVALID, ("ModelInferRequest",)),
    BadRpc("endless varint", b"\x08" + b"\xff" * 32, INVALID, ("ModelInferRequest",)),
    BadRpc("length beyond the message", b"\x0a\xff\xff\xff\x7fx", INVALID, ("ModelInferRequest",)),
    BadRpc("deep unknown group", b"\x83\x01" * 5000, INVALID, ("ModelInferRequest",)),
    BadRpc("model name that is no UTF-8", b"\x0a\x02\xff\xfe", INVALID, ()),
    BadRpc("empty message", b"", MISSING, ("unknown model",)),
    bad("short raw tensor", ("x", "16", "12"), raw_input_contents=[bytes(12)]),
    bad("long raw tensor", ("x", "16", "20"), raw_input_contents=[bytes(20)]),
    bad("no raw tensor", ("x",), raw_input_contents=[]),
    bad("too many raw tensors", ("2", "1"), raw_input_contents=[ROW, ROW]),
    bad("raw and typed", ("x",), tensor(contents=typed(fp32_contents=[0] * 4))),
    bad(
        "too few typed", ("x", "4", "3"), tensor(contents=typed(fp32_contents=[0] * 3)), raw_input_contents=[]
    ),
    bad(
        "too many typed",
        ("x", "4", "5"),
        tensor(contents=typed(fp32_contents=[0] * 5)),
        raw_input_contents=[],
    ),
    bad(
        "contents of another type",
        ("x", "FP32"),
        tensor(contents=typed(int_contents=[0] * 4)),
        raw_input_contents=[],
    ),
    bad(
        "two kinds of contents",
        ("x",),
        tensor(contents=typed(fp32_contents=[0] * 4, int_contents=[0])),
        raw_input_contents=[],
    ),
    bad(
        "typed integer out of range",
        ("x", "INT8"),
        tensor(datatype="INT8", shape=[1, 2], contents=typed(int_contents=[1, 128])),
        model_name=NUMBERS,
        raw_input_contents=[],
    ),
    bad("product beyond 64 bits", ("x", "elements"), tensor(shape=[2**62, 4])),
    bad("product that wraps to the right size", ("x", "elements"), tensor(shape=[2**63 - 1, 2**63 - 1, 4])),
    bad("zero-sized axis hides an overflow", ("x", "elements"), tensor(shape=[0, 2**62, 2**62])),
    bad("negative axis", ("x", "-1"), tensor(shape=[-1, 4])),
    bad("too many axes", ("x", "axes"), tensor(shape=[1] * 1000)),
    bad("rank of another model", (OFFSET, "[-1,4]", "[4]"), tensor(shape=[4])),
    bad("wrong datatype", (OFFSET, "INT32", "FP32"), tensor(datatype="INT32")),
    bad("unknown datatype", ("x", "FLOAT"), tensor(datatype="FLOAT")),
    bad("unknown input", (OFFSET, "nobody", "x"), tensor(name="nobody")),
    bad("duplicate tensor", (OFFSET, "x"), tensor(), tensor()),
    BadRpc(
        "missing input", pb.ModelInferRequest(model_name=OFFSET).SerializeToString(), INVALID, (OFFSET, "x")
    ),
    bad("too many inputs", ("257", "256"), *[tensor()] * 257),
    bad(
        "unknown output",
        (OFFSET, "z", "y"),
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="z")],
    ),
    bad("duplicate output", ("y",), outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")] * 2),
    bad("unknown model", ("nobody",), code=MISSING, model_name="nobody"),
    bad("no model", ("unknown model",), code=MISSING, model_name=""),
    bad("unknown version", (OFFSET, "9"), code=MISSING, model_version="9"),
    bad("version is text", ("version", "one"), model_version="one"),
    bad("version beyond 64 bits", ("version",), model_version="9" * 40),
    bad("negative timeout", ("timeout", "-1"), parameters={"timeout": _PARAMETER(int64_param=-1)}),
    bad(
        "NaN as a timeout", ("timeout", "nan"), parameters={"timeout": _PARAMETER(double_param=float("nan"))}
    ),
    bad("priority is text", ("priority",), parameters={"priority": _PARAMETER(string_param="high")}),
    bad("parameter without a value", ("p",), parameters={"p": _PARAMETER()}),
    bad(
        "too many parameters",
        ("parameters", "128"),
        parameters={f"p{i}": _PARAMETER(bool_param=True) for i in range(200)},
    ),
    bad("parameter of a megabyte", ("p",), parameters={"p": _PARAMETER(string_param="v" * 2**20)}),
    bad("name of a megabyte", (OFFSET,), tensor(name="n" * 2**20)),
    bad(
        "shared memory",
        ("memory",),
        tensor(parameters={"shared_memory_region": _PARAMETER(string_param="r")}),
        code=grpc.StatusCode.UNIMPLEMENTED,
        raw_input_contents=[],
    ),
    bad(
        "huge text length",
        (TEXT, "x", "4294967295"),
        tensor(datatype="BYTES", shape=[1]),
        model_name=TEXT,
        raw_input_contents=[b"\xff\xff\xff\xffa"],
    ),
    bad(
        "too many texts",
        (TEXT, "x", "2"),
        tensor(datatype="BYTES", shape=[2]),
        model_name=TEXT,
        raw_input_contents=[element(b"a") * 3],
    ),
    bad(
        "text that is no UTF-8",
        (TEXT, "x", "UTF-8"),
        tensor(datatype="BYTES", shape=[1]),
        model_name=TEXT,
        raw_input_contents=[element(b"\xff\xfe")],
    ),
    bad(
        "message beyond the limit",
        ("larger than max", str(LIMIT_BYTES)),
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        raw_input_contents=[bytes(LIMIT_BYTES)],
    ),
]

OTHERS: Final = [
    BadRpc("unknown method", b"", grpc.StatusCode.UNIMPLEMENTED, (), method="ModelGuess"),
    BadRpc(
        "truncated metadata request",
        b"\x0a\x09dig",
        INVALID,
        ("ModelMetadataRequest",),
        method="ModelMetadata",
    ),
    BadRpc(
        "metadata of nobody",
        pb.ModelMetadataRequest(name="nobody").SerializeToString(),
        MISSING,
        ("nobody",),
        method="ModelMetadata",
    ),
    BadRpc(
        "statistics of a version alone",
        pb.ModelStatisticsRequest(version="1").SerializeToString(),
        INVALID,
        ("1",),
        method="ModelStatistics",
    ),
    BadRpc(
        "load in mode none",
        pb.RepositoryModelLoadRequest(model_name=OFFSET).SerializeToString(),
        grpc.StatusCode.UNAVAILABLE,
        ("mode 'none'",),
        method="RepositoryModelLoad",
    ),
    BadRpc(
        "named repository",
        pb.RepositoryIndexRequest(repository_name="r").SerializeToString(),
        grpc.StatusCode.UNIMPLEMENTED,
        ("repository",),
        method="RepositoryIndex",
    ),
    BadRpc(
        "shared memory status",
        b"",
        grpc.StatusCode.UNIMPLEMENTED,
        ("allow-client-shm",),
        method="SystemSharedMemoryStatus",
    ),
    BadRpc(
        "unknown log setting",
        pb.LogSettingsRequest(
            settings={"nothing": pb.LogSettingsRequest.SettingValue(bool_param=True)}
        ).SerializeToString(),
        INVALID,
        ("nothing",),
        method="LogSettings",
    ),
]

CASES: Final = [*INFER, *OTHERS]
