"""Bad HTTP requests, each with the status and the words that its answer must have."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

from loadtests.soak_http import request
from loadtests.soak_models import NUMBERS, OFFSET, TEXT

MIB: Final = 1 << 20
LIMIT_BYTES: Final = 4 * MIB
"""`max_body_bytes` of the server that the corpus is sent to."""


@dataclass(frozen=True)
class BadHttp:
    """`data` is sent on a new connection whose sending side is then shut if `half_close` is set."""

    name: str
    data: bytes
    status: int
    words: tuple[str, ...]
    half_close: bool = False


def path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def tensor(**changes: Any) -> dict[str, Any]:
    good = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}
    return {k: v for k, v in {**good, **changes}.items() if v is not None}


def posted(body: object, model: str = OFFSET, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", path(model), content, **headers)


def inputs(
    name: str, words: tuple[str, ...], *tensors: Any, status: int = 400, model: str = OFFSET
) -> BadHttp:
    return BadHttp(name, posted({"inputs": list(tensors)}, model), status, words)


def of_x(title: str, words: tuple[str, ...], *, status: int = 400, **changes: Any) -> BadHttp:
    return inputs(title, words, tensor(**changes), status=status)


def text(name: str, body: str | bytes, words: tuple[str, ...], status: int = 400) -> BadHttp:
    return BadHttp(name, posted(body.encode() if isinstance(body, str) else body), status, words)


def binary(
    title: str, content: bytes, words: tuple[str, ...], *, model: str = OFFSET, **changes: Any
) -> BadHttp:
    return BadHttp(title, binary_post(content, model, **changes), 400, words)


def binary_post(
    content: bytes, model: str = OFFSET, header_length: str | None = None, **changes: Any
) -> bytes:
    size = changes.pop("binary_data_size", len(content))
    described = tensor(data=None, parameters={"binary_data_size": size}, **changes)
    head = json.dumps({"inputs": [described]}).encode()
    length = str(len(head)) if header_length is None else header_length
    return posted(head + content, model, Inference_Header_Content_Length=length)


def element(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


TENSORS: Final = [
    of_x("too few elements", (OFFSET, "x", "4", "3"), data=[0, 1, 2]),
    of_x("too many elements", (OFFSET, "x", "4", "5"), data=[0, 1, 2, 3, 4]),
    of_x("product of the shape beyond 64 bits", ("x", "elements"), status=413, shape=[2**62, 4]),
    of_x("product that wraps to the right size", ("x",), status=413, shape=[2**63 - 1, 2**63 - 1, 4]),
    of_x("axis beyond 64 bits", ("x", "shape"), shape=[2**64, 4]),
    of_x("zero-sized axis hides an overflow", ("x",), status=413, shape=[0, 2**62, 2**62]),
    of_x("negative axis", ("x", "invalid dimensions", "-1"), shape=[-1, 4]),
    of_x("fractional axis", ("x", "shape"), shape=[1.5, 4]),
    of_x("axis as text", ("x", "shape"), shape=["1", 4]),
    of_x("axis as boolean", ("x", "shape"), shape=[True, 4]),
    of_x("shape is no list", ("x", "shape"), shape=4),
    of_x("no shape", ("x", "shape"), shape=None),
    of_x("too many axes", ("x", "axes"), status=413, shape=[1] * 33, data=[0]),
    of_x("rank of another model", (OFFSET, "x", "[-1,4]"), shape=[4]),
    of_x("width of another model", (OFFSET, "x", "[-1,4]"), shape=[1, 5], data=[0] * 5),
    of_x("wrong datatype", (OFFSET, "x", "INT32", "FP32"), datatype="INT32"),
    of_x("unknown datatype", ("x", "FLOAT"), datatype="FLOAT"),
    of_x("datatype is no text", ("datatype",), datatype=32),
    of_x("half floats in JSON", ("x", "FP16"), datatype="FP16"),
    of_x("text among numbers", ("x",), data=[0, 1, "2", 3]),
    of_x("null among numbers", ("x",), data=[0, None, 2, 3]),
    of_x("boolean among numbers", ("x",), data=[0, True, 2, 3]),
    of_x("object among numbers", ("x",), data=[0, {}, 2, 3]),
    of_x("data is an object", ("x", "data"), data={"0": 1}),
    of_x("neither data nor binary", ("x",), data=None),
    of_x("both data and binary", ("x",), parameters={"binary_data_size": 16}),
    of_x("shared memory", ("memory",), status=501, data=None, parameters={"shared_memory_region": "r"}),
    of_x("unknown input", (OFFSET, "nobody"), name="nobody"),
    of_x("empty name", (OFFSET,), name=""),
    of_x("name of a megabyte", (OFFSET, "longer than"), status=413, name="n" * MIB),
    of_x("name is no text", ("name",), name=7),
    of_x("parameters are no object", ("parameters",), parameters=[1]),
    inputs("duplicate tensor", (OFFSET, "x"), tensor(), tensor()),
    inputs("missing input", (OFFSET, "x")),
    inputs("too many inputs", (OFFSET, "257", "256"), *[tensor()] * 257, status=413),
    inputs("input is no object", ("input", "object"), 7),
    inputs(
        "integer out of range",
        ("x", "INT8"),
        tensor(datatype="INT8", shape=[1, 2], data=[1, 128]),
        model=NUMBERS,
    ),
    inputs("huge integer", ("INT8",), tensor(datatype="INT8", shape=[1, 2], data=[1, 10**30]), model=NUMBERS),
    inputs(
        "fraction for an integer",
        ("INT8",),
        tensor(datatype="INT8", shape=[1, 2], data=[1, 1.5]),
        model=NUMBERS,
    ),
    inputs("number for text", ("BYTES",), tensor(datatype="BYTES", shape=[1], data=[1]), model=TEXT),
]

DOCUMENTS: Final = [
    text("empty body", b"", ("empty",)),
    text("no JSON", "inputs", ("JSON",)),
    text("truncated JSON", '{"inputs":[{"name":"x"', ("JSON",)),
    text("JSON and more", '{"inputs":[]} x', ("JSON",)),
    text("a list", "[]", ("object",)),
    text("null", "null", ("object",)),
    text("inputs twice", '{"inputs":[],"inputs":[]}', ("twice",)),
    text("no inputs", "{}", ("inputs",)),
    text("inputs is an object", '{"inputs":{}}', ("inputs",)),
    text("outputs is a number", json.dumps({"inputs": [tensor()], "outputs": 3}), ("outputs",)),
    text("unknown output", json.dumps({"inputs": [tensor()], "outputs": [{"name": "z"}]}), (OFFSET, "z")),
    text("duplicate output", json.dumps({"inputs": [tensor()], "outputs": [{"name": "y"}] * 2}), ("y",)),
    text("id is a number", json.dumps({"id": 1, "inputs": [tensor()]}), ("id",)),
    text("deep list", "[" * LIMIT_BYTES, ("100",)),
    text("deep object", '{"a":' * (LIMIT_BYTES // 5), ("100",)),
    text("deep object with escapes", '{"\\\\":' * (LIMIT_BYTES // 6), ("100",)),
    text(
        "deep data",
        json.dumps({"inputs": [tensor(data="@")]}).replace('"@"', "[" * 200 + "0" + "]" * 200),
        ("100",),
    ),
    text("bytes that are no UTF-8", b'{"inputs":[{"name":"\xff\xfe"}]}', ("UTF-8",)),
    text("lone surrogate", '{"inputs":[{"name":"\\ud800"}]}', ()),
    text("NaN as a name", '{"inputs":[{"name":NaN}]}', ("name",)),
    text(
        "Infinity as an axis",
        json.dumps({"inputs": [tensor(shape=["@"])]}).replace('"@"', "Infinity"),
        ("shape",),
    ),
    text("NaN as inputs", '{"inputs":NaN}', ("inputs",)),
    text("Infinity as a document", "Infinity", ("object",)),
    text("half of NaN", json.dumps({"inputs": [tensor(data=["@"])]}).replace('"@"', "Na"), ("JSON",)),
    text("NaN as a timeout", '{"parameters":{"timeout":NaN},"inputs":[]}', ("timeout",)),
    text("number of a million digits", '{"inputs":[' + "9" * MIB + "]}", ()),
    text(
        "exponent beyond doubles",
        json.dumps({"inputs": [tensor(data=["@"] * 4)]}).replace('"@"', "1e999"),
        ("number",),
    ),
    text(
        "priority is text",
        json.dumps({"parameters": {"priority": "high"}, "inputs": [tensor()]}),
        ("priority",),
    ),
    text("negative timeout", json.dumps({"parameters": {"timeout": -1}, "inputs": [tensor()]}), ("timeout",)),
    text(
        "too many parameters",
        json.dumps({"parameters": {f"p{i}": 1 for i in range(200)}, "inputs": [tensor()]}),
        ("parameters", "128"),
        413,
    ),
    text(
        "parameter of a megabyte",
        json.dumps({"parameters": {"p": "v" * MIB}, "inputs": [tensor()]}),
        ("p",),
        413,
    ),
]

BINARY: Final = [
    binary("short tensor", bytes(12), ("x", "12", "16")),
    binary("long tensor", bytes(20), ("x", "20", "16")),
    binary("size beyond the body", bytes(16), ("x",), binary_data_size=1 << 40),
    binary("negative size", bytes(16), ("binary_data_size",), binary_data_size=-16),
    binary("fractional size", bytes(16), ("binary_data_size",), binary_data_size=16.5),
    binary("bytes left over", bytes(20), ("4", OFFSET), binary_data_size=16),
    binary(
        "negative header length", bytes(16), ("Inference-Header-Content-Length", "-1"), header_length="-1"
    ),
    binary(
        "huge header length", bytes(16), ("Inference-Header-Content-Length", "9" * 30), header_length="9" * 30
    ),
    binary(
        "header length is text", bytes(16), ("Inference-Header-Content-Length", "ten"), header_length="ten"
    ),
    binary(
        "header length in other digits",
        bytes(16),
        ("Inference-Header-Content-Length",),
        header_length="\u00b2",
    ),
    binary(
        "header length beyond the body",
        bytes(16),
        ("Inference-Header-Content-Length", "1000"),
        header_length="1000",
    ),
    binary("header length inside the JSON", bytes(16), ("JSON",), header_length="20"),
    binary(
        "huge text length",
        struct.pack("<I", 2**32 - 1) + b"a",
        ("x", str(2**32 - 1)),
        model=TEXT,
        datatype="BYTES",
        shape=[1],
    ),
    binary("half a text length", b"\x01\x00", ("x",), model=TEXT, datatype="BYTES", shape=[1]),
    binary("too few texts", element(b"a"), ("x", "5 bytes", "2"), model=TEXT, datatype="BYTES", shape=[2]),
    binary("too many texts", element(b"a") * 3, ("x", "2"), model=TEXT, datatype="BYTES", shape=[2]),
    binary(
        "text that is no UTF-8", element(b"\xff\xfe"), ("x", "UTF-8"), model=TEXT, datatype="BYTES", shape=[1]
    ),
    BadHttp(
        "raw body of the wrong size", posted(bytes(7), Inference_Header_Content_Length="0"), 400, ("x", "7")
    ),
]


def bomb(wrapper: str) -> bytes:
    """Return 256 MiB of zeros, compressed, but for the checksum at the end: nobody should get that far."""
    zeros = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15}[wrapper])
    first, again = [zeros.compress(bytes(MIB)) + zeros.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    return first + again * 255  # what follows a full flush depends on nothing before it


CODINGS: Final = [
    BadHttp("gzip bomb", posted(bomb("gzip"), Content_Encoding="gzip"), 413, ("body",)),
    BadHttp("deflate bomb", posted(bomb("deflate"), Content_Encoding="deflate"), 413, ("body",)),
    BadHttp(
        "bomb in a bomb",
        posted(gzip.compress(bomb("gzip")), Content_Encoding="gzip, gzip"),
        501,
        ("gzip, gzip",),
    ),
    BadHttp("truncated gzip", posted(gzip.compress(b"{}")[:-6], Content_Encoding="gzip"), 400, ("gzip",)),
    BadHttp("no gzip", posted(b"{}{}{}", Content_Encoding="gzip"), 400, ("gzip",)),
    BadHttp("no deflate", posted(b"\x78\x9c\xff\xff", Content_Encoding="deflate"), 400, ("deflate",)),
    BadHttp("data after gzip", posted(gzip.compress(b"{}") + b"x", Content_Encoding="gzip"), 400, ("gzip",)),
    BadHttp("unknown coding", posted(b"{}", Content_Encoding="br"), 501, ("br", "gzip, deflate")),
    BadHttp("coding of a kilobyte", posted(b"{}", Content_Encoding="z" * 1024), 501, ("gzip, deflate",)),
]

_POST = f"POST {path(OFFSET)} HTTP/1.1\r\nHost: x\r\n".encode()
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"

FRAMING: Final = [
    BadHttp("negative length", _POST + b"Content-Length: -1\r\n\r\n", 400, ("malformed",)),
    BadHttp("length is text", _POST + b"Content-Length: two\r\n\r\n{}", 400, ("malformed",)),
    BadHttp("two lengths", _POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, ("malformed",)),
    BadHttp(
        "length beyond 64 bits",
        _POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        400,
        ("malformed",),
    ),
    BadHttp(
        "length and chunks",
        _POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        ("malformed",),
    ),
    BadHttp("body beyond the limit", _POST + b"Content-Length: 4194305\r\n\r\n", 413, ("4194304",)),
    BadHttp("chunks beyond the limit", _CHUNKED + b"500000\r\n" + bytes(LIMIT_BYTES + 1), 413, ("4194304",)),
    BadHttp("chunk size is text", _CHUNKED + b"zz\r\n", 400, ("malformed",)),
    BadHttp("negative chunk", _CHUNKED + b"-1\r\n", 400, ("malformed",)),
    BadHttp("chunk beyond 64 bits", _CHUNKED + b"f" * 20 + b"\r\n", 400, ("malformed",)),
    BadHttp("chunk longer than said", _CHUNKED + b"2\r\n{}{}\r\n0\r\n\r\n", 400, ("malformed",)),
    BadHttp("too many chunks", _CHUNKED + b"1\r\n0\r\n" * 65_538, 400, ("65536 chunks",)),
    BadHttp("endless chunk extension", _CHUNKED + b"1;" + b"e" * 200_000, 400, ()),
    BadHttp("unknown transfer coding", _POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, ("chunked",)),
    BadHttp("another protocol", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, ("malformed",)),
    BadHttp("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ("malformed",)),
    BadHttp("header without colon", b"GET /v2 HTTP/1.1\r\nHost\r\n\r\n", 400, ("malformed",)),
    BadHttp("NUL in a header", b"GET /v2 HTTP/1.1\r\nHost: \x00\r\n\r\n", 400, ("malformed",)),
    BadHttp("space before the colon", b"GET /v2 HTTP/1.1\r\nHost : x\r\n\r\n", 400, ("malformed",)),
    BadHttp("oversize header", b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431, ("32768",)),
    BadHttp("endless header", b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 300_000, 431, ("32768",)),
    BadHttp("too many headers", b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431, ("100",)),
    BadHttp("long target", b"GET /v2?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, ("8192",)),
    BadHttp("half-closed in the head", b"GET /v2 HTTP/1.1\r\nHost:", 400, ("headers",), half_close=True),
    BadHttp(
        "half-closed in the body", _POST + b"Content-Length: 100\r\n\r\n{", 400, ("body",), half_close=True
    ),
    BadHttp("half-closed in a chunk", _CHUNKED + b"10\r\n{", 400, ("body",), half_close=True),
]

ROUTES: Final = [
    BadHttp("unknown path", request("GET", "/v3"), 404, ("Not Found",)),
    BadHttp("unknown method", request("DELETE", "/v2"), 405, ("Method Not Allowed",)),
    BadHttp("unknown model", posted({"inputs": [tensor()]}, "nobody"), 404, ("nobody",)),
    BadHttp(
        "unknown version",
        request("POST", "/v2/models/offset/versions/9/infer", json.dumps({"inputs": [tensor()]}).encode()),
        404,
        (OFFSET, "9"),
    ),
    BadHttp(
        "version is text", request("POST", "/v2/models/offset/versions/x/infer", b"{}"), 404, ("Not Found",)
    ),
    BadHttp(
        "version beyond 64 bits", request("GET", f"/v2/models/offset/versions/{'9' * 40}"), 400, ("version",)
    ),
    BadHttp("model of a kilobyte", request("GET", "/v2/models/" + "m" * 1500), 404, ()),
    BadHttp("model that is no UTF-8", request("GET", "/v2/models/%ff%fe/ready"), 400, ("UTF-8",)),
    BadHttp("path out of the tree", request("GET", "/v2/models/..%2f..%2fetc%2fpasswd"), 404, ()),
    BadHttp(
        "deadline is text",
        posted({"inputs": [tensor()]}, X_Request_Timeout_Ms="soon"),
        400,
        ("X-Request-Timeout-Ms", "soon"),
    ),
    BadHttp(
        "deadline is NaN",
        posted({"inputs": [tensor()]}, X_Request_Timeout_Ms="nan"),
        400,
        ("X-Request-Timeout-Ms",),
    ),
    BadHttp(
        "negative deadline",
        posted({"inputs": [tensor()]}, X_Request_Timeout_Ms="-1"),
        400,
        ("X-Request-Timeout-Ms",),
    ),
    BadHttp(
        "deadline that has passed",
        posted({"inputs": [tensor()]}, X_Request_Timeout_Ms="1e-9"),
        504,
        (OFFSET, "deadline"),
    ),
    BadHttp("load in mode none", request("POST", "/v2/repository/models/offset/load"), 503, ("mode 'none'",)),
    BadHttp("load is no JSON", request("POST", "/v2/repository/models/offset/load", b"{"), 400, ("JSON",)),
    BadHttp("named repository", request("POST", "/v2/repository/r/index"), 501, ("repository",)),
    BadHttp("shared memory", request("GET", "/v2/systemsharedmemory/status"), 501, ("allow-client-shm",)),
]

CASES: Final = [*TENSORS, *DOCUMENTS, *BINARY, *CODINGS, *FRAMING, *ROUTES]
