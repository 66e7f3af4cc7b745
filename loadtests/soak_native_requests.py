"""Requests for the native transport's long counts, no two alike, each with the only right answer."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc.aio
import numpy as np
from hpack import Encoder, NeverIndexedHeaderTuple

from gateway._proto import open_inference_pb2 as pb
from loadtests import captured
from loadtests.replay.grpc_calls import HeaderBlocks
from loadtests.soak_grpc import SERVICE, channel, stream_infer, unary
from loadtests.soak_models import OFFSET, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGE_ROWS: Final = 5000
"""80,000 bytes: more than the window that clients open for an answer, which is given up half sent."""
_ID: Final = "0123456789abcdef"
_ROW: Final = struct.Struct(f"<{WIDTH}f")
_VARIANTS: Final = (
    ("grpcio", "plain"),
    ("grpcio", "deadlines+traceparent"),
    ("grpc-js", "traceparent"),
    ("grpc-js", "deadlines"),
    ("grpc-go", "deadlines"),
    ("grpc-go", "plain"),
)

Asked: TypeAlias = "tuple[bytes, bytes]"
"""A message and the right answer to it, both with their gRPC prefix."""
_Kind: TypeAlias = "tuple[int, bool]"
"""Rows, and whether there is an id."""


@dataclass(frozen=True, slots=True)
class Client:
    """What one kind of client says.

    Attributes:
        opening: of a connection.
        blocks: header blocks of unary requests, with values of their own where they vary.
    """

    opening: bytes
    blocks: HeaderBlocks


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A message but for its id and its tensor, which is the last."""

    before: bytes
    after: bytes

    def fill(self, id_: bytes, tensor: bytes) -> bytes:
        return b"%b%b%b%b" % (self.before, id_, self.after, tensor)


@dataclass(frozen=True, slots=True)
class _Learnt:
    """Request and answer of a kind, by a unary call and in a stream."""

    unary: tuple[_Pattern, _Pattern]
    stream: tuple[_Pattern, _Pattern]


class Requests:
    """Makes requests for the offset model; see `learn`."""

    def __init__(self, patterns: Mapping[_Kind, _Learnt]) -> None:
        self._small = patterns[1, False], patterns[1, True]
        self._large = patterns[LARGE_ROWS, False].unary
        values = np.arange(LARGE_ROWS * WIDTH, dtype=np.float32)
        self._large_tensors = values.tobytes(), (values + 1).tobytes()

    def small(self, number: int, *, stream: bool = False) -> Asked:
        """Return request `number`, of one row, and its answer; every other one has an id."""
        row, right = _rows(number)
        learnt = self._small[number & 1]
        request, answer = learnt.stream if stream else learnt.unary
        id_ = b"%016x" % number if number & 1 else b""
        return prefixed(request.fill(id_, row)), prefixed(answer.fill(id_, right))

    def large(self, number: int) -> Asked:
        """Return request `number` with `LARGE_ROWS` rows."""
        row, right = _rows(number)
        rows, answered = self._large_tensors
        request, answer = self._large
        message = request.fill(b"", row + rows[_ROW.size :])
        return prefixed(message), prefixed(answer.fill(b"", right + answered[_ROW.size :]))


def _rows(number: int) -> tuple[bytes, bytes]:
    """Return a row of whole numbers, which FP32 has exactly, and what the model makes of it."""
    high, low = number >> 20, number & 0xFFFFF
    return _ROW.pack(low, high, 1.0, 2.0), _ROW.pack(low + 1, high + 1, 2.0, 3.0)


async def learn(grpc_port: int) -> Requests:
    """Ask once by grpcio for each kind of request, check the answer, and keep how it is said."""
    patterns: dict[_Kind, _Learnt] = {}
    async with channel(grpc_port) as over:
        for rows, has_id in ((1, False), (1, True), (LARGE_ROWS, False)):
            values = np.arange(rows * WIDTH, dtype=np.float32)
            id_ = _ID if has_id else ""
            request = _request(rows, id_, values.tobytes())
            answer: bytes = await unary(over)(request)
            _check(pb.ModelInferResponse.FromString(answer), rows, id_, (values + 1).tobytes())
            streamed = await _in_stream(over, request)
            inner = pb.ModelStreamInferResponse.FromString(streamed).infer_response
            _check(inner, rows, id_, (values + 1).tobytes())
            asked, *said = (_pattern(data, id_, values.nbytes) for data in (request, answer, streamed))
            patterns[rows, has_id] = _Learnt((asked, said[0]), (asked, said[1]))
    return Requests(patterns)


async def _in_stream(over: grpc.aio.Channel, request: bytes) -> bytes:
    """Return the answer to the only message of a stream."""
    stream = stream_infer(over)
    await stream.write(request)
    answer = await stream.read()
    await stream.done_writing()
    if not isinstance(answer, bytes) or await stream.read() is not grpc.aio.EOF:
        raise ValueError("a stream of one request did not end after one answer")
    return answer


def _request(rows: int, id_: str, tensor: bytes) -> bytes:
    described = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[rows, WIDTH])
    message = pb.ModelInferRequest(model_name=OFFSET, id=id_, inputs=[described], raw_input_contents=[tensor])
    return message.SerializeToString()


def _check(answer: pb.ModelInferResponse, rows: int, id_: str, tensor: bytes) -> None:
    said = (answer.model_name, answer.id, list(answer.outputs[0].shape), answer.raw_output_contents[:])
    if said != (OFFSET, id_, [rows, WIDTH], [tensor]):
        raise ValueError(f"a wrong answer before the count began: {answer}"[:2000])


def _pattern(message: bytes, id_: str, tensor_bytes: int) -> _Pattern:
    head = message[:-tensor_bytes]
    if not id_:
        return _Pattern(head, b"")
    before, _, after = head.partition(id_.encode())
    return _Pattern(before, after)


def prefixed(message: bytes) -> bytes:
    """Return a message with its gRPC prefix."""
    return b"\0" + len(message).to_bytes(4) + message


def _stream_block() -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/{SERVICE}/ModelStreamInfer"),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    encoded: bytes = Encoder().encode([NeverIndexedHeaderTuple(*field) for field in fields], huffman=False)
    return encoded


STREAM_BLOCK: Final = _stream_block()
"""The header block of a ModelStreamInfer that neither uses nor changes the dynamic table."""


def clients() -> list[Client]:
    """Return clients of every kind."""
    loaded = [captured.load(client, name) for client, name in _VARIANTS]
    return [Client(found.opening, HeaderBlocks(found.templates)) for found in loaded]
